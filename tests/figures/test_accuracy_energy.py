"""The headline figure draws what was measured, over what the paper plotted, with any number of results."""

import math

import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from bnnlib import figures, paths
from bnnlib.analysis import claims, claims_table
from bnnlib.figures import accuracy_energy


@pytest.fixture
def ax():
    fig, ax = plt.subplots(figsize=(10, 5))
    yield ax
    plt.close(fig)


def marks(ax):
    """Every drawn point (x, y, filled) and every upright stroke (x, y)."""
    hollow = [
        (*map(float, offset), False) for c in ax.collections for offset in c.get_offsets() if len(c.get_offsets()) == 1
    ]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 1]
    filled = [(float(x.get_xdata()[0]), float(x.get_ydata()[0]), True) for x in lines if x.get_marker() not in "|_"]
    strokes = [
        (float(x.get_xdata()[0]), float(x.get_ydata()[0])) for x in lines if x.get_marker() == "|" and x.get_ms() > 8
    ]
    return hollow, filled, strokes


def mine(**networks):
    rows = {
        name: [claims_table.network_uj("mnist", name), *values, accuracy_energy.family("mnist", name)]
        for name, values in networks.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=accuracy_energy.OURS)


@pytest.mark.parametrize("dataset", claims_table.STUDIES)
def test_every_point_of_the_paper_is_drawn_where_it_lies(ax, dataset):
    theirs = accuracy_energy.papers(dataset, claims_table.read())
    plotted = pd.read_csv(paths.DATA / "paper_pareto_points.csv").query("dataset == @dataset")
    accuracy_energy.panel(ax, theirs, mine())
    hollow, filled, _ = marks(ax)
    expected = zip(plotted["energy_uj"], plotted["accuracy_percent"], strict=True)
    drawn = sorted(point[:2] for point in hollow)
    assert np.array(drawn) == pytest.approx(np.array(sorted(expected)))
    assert filled == []
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert all(left < x < right and bottom < y < top for x, y, _ in hollow)


def test_a_stroke_where_nothing_was_trained_and_the_point_is_comparable(ax):
    theirs = accuracy_energy.papers("mnist", claims_table.read())
    accuracy_energy.panel(ax, theirs, mine(binary=(99.3, 0.05, 5), L1T=(99.3, 0.05, 3)))
    _, _, strokes = marks(ax)
    drawn = {round(y, 2) for _, y in strokes}
    assert 99.32 in drawn and 99.38 in drawn  # WIDEN8, TBN
    assert not drawn & {99.26, 99.16, 99.04, 98.82, 98.75}  # binary; a candidate has a result; not comparable
    widen8 = next(x for x, y in strokes if round(y, 2) == 99.32)
    assert widen8 == pytest.approx(claims_table.network_uj("mnist", "WIDEN8"))


def test_ours_are_drawn_with_bars_links_and_labels(ax):
    theirs = accuracy_energy.papers("mnist", claims_table.read())
    accuracy_energy.panel(ax, theirs, mine(binary=(99.3, 0.05, 5), HORQ=(99.4, math.nan, 1), L1FP=(99.4, 0.05, 2)))
    _, filled, _ = marks(ax)
    assert {(round(y, 2)) for _, y, _ in filled} == {99.3, 99.4}
    texts = {text.get_text() for text in ax.texts}
    assert {"binary (5)", "HORQ (1)", "L1FP (2)", "HORQ, published", "WIDEN8"} <= texts
    assert "WIDEN8 (1)" not in texts and "binary" not in texts
    links = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_alpha() == 0.45]
    assert len(links) == 1, (
        "only binary: HORQ's point is another network, and the figure does not say which one L1FP is"
    )
    assert sorted(links[0].get_ydata()) == pytest.approx([99.26, 99.3])


def test_the_numbers_drawn_are_those_of_the_claims():
    judged = claims.judge(claims_table.read().query("kind == 'accuracy' and dataset == 'mnist'")).set_index("measured")
    drawn = accuracy_energy.ours("mnist")
    for network in ("binary", "float", "L1T"):
        row = judged.loc[[network]].iloc[0]
        assert (drawn.loc[network, "mean"], drawn.loc[network, "n"]) == (pytest.approx(row["ours"]), row["n"])
        assert drawn.loc[network, "sd"] == pytest.approx(row["sd"])
    assert drawn["energy_uj"].is_monotonic_increasing


def test_families_have_a_look():
    known = [(dataset, name) for dataset in claims_table.STUDIES for name in claims_table.networks_of(dataset)]
    assert {accuracy_energy.family(*one) for one in known} <= set(figures.FAMILIES)
    assert [accuracy_energy.family("mnist", n) for n in ("BC", "DoReFa-1-2", "XNOR-Net", "TBN")] == [
        "BC/BWN",
        "DoReFa",
        "XNOR-Net",
        "TBN",
    ]
    assert [accuracy_energy.family("mnist", n) for n in ("L1T", "WIDEN2", "LNFP", "binary")] == [
        "ternary",
        "width",
        "first/last",
        "binary",
    ]


def test_the_arrow_goes_from_the_point_to_the_line(ax):
    ax.set(xlim=(0.01, 1), ylim=(98, 100), xscale="log")
    accuracy_energy.saving(ax, (0.073, 99.4), 0.021, "x 3.5")
    arrow, text = sorted(ax.texts, key=lambda one: one.get_text())
    assert arrow.xy[0] == 0.021 and arrow.xyann[0] == 0.073
    assert text.get_position()[0] == pytest.approx(np.sqrt(0.073 * 0.021))


def test_labels_may_stand_on_the_left(ax):
    ax.set(xlim=(0, 10), ylim=(0, 10))
    figures.label_points(ax, [5, 5], [3, 7], ["low", "high"], left=["low"])
    side = {text.get_text(): text.get_ha() for text in ax.texts}
    assert side == {"low": "right", "high": "left"}
