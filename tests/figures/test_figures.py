"""Figures: the same data gives the same bytes, and a sidecar knows when they no longer agree."""

import json
import time

import matplotlib

matplotlib.use("Agg")  # not through MPLBACKEND, which the kernels of the notebook tests would inherit
import matplotlib.pyplot as plt
import numpy as np
import pytest

from bnnlib import UserError, figures, paths
from bnnlib.files import sha256


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository of its own with one table and two results."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    monkeypatch.delenv("BNN_FIGURES", raising=False)
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "table.csv").write_text("a,b\n1,2\n")
    for name in "ab":
        (tmp_path / "data" / "results" / f"{name}.json").write_text("{}")
    with matplotlib.rc_context():
        yield tmp_path
    plt.close("all")


def draw():
    figures.style()
    fig, ax = plt.subplots()
    for i, family in enumerate(figures.FAMILIES):
        ax.plot([1, 2, 3], [i, i + 1, i], **figures.look(family))
    ax.set(xlabel=r"energy per classification [$\mu$J]", ylabel="test accuracy [%]", xscale="log")
    ax.legend()
    return fig


def save(fig, name="accuracy", sources=("data/table.csv", "data/results"), **options):
    figures.save(fig, name, sources=sources, **{"alt": "A line.", "made_by": "03_cost"} | options)


def test_same_data_same_bytes(repository):
    def made():
        save(draw())
        return [(repository / "figures" / f"accuracy.{kind}").read_bytes() for kind in ("png", "pdf", "json")]

    first = made()
    time.sleep(1.1)  # a date in the file would differ
    assert made() == first
    assert first[0].startswith(b"\x89PNG") and first[1].startswith(b"%PDF")
    assert not any(word in first[0] + first[1] for word in (b"CreationDate", b"Software", b"Matplotlib"))
    assert sorted(p.name for p in paths.FIGURES.iterdir()) == ["accuracy.json", "accuracy.pdf", "accuracy.png"]


def test_sidecar_names_sources_and_hashes(repository):
    table = repository / "data" / "table.csv"
    save(draw(), sources=[table, "data/table.csv", "data/results"], alt="  Two\n lines. ")
    sidecar = json.loads((repository / "figures" / "accuracy.json").read_text())
    assert (sidecar["figure"], sidecar["made_by"], sidecar["alt"]) == ("accuracy", "03_cost", "Two lines.")
    assert [source["path"] for source in sidecar["sources"]] == ["data/results", "data/table.csv"]
    assert sidecar["sources"][1]["sha256"] == sha256(table)


def test_figure_stays_open_outside_a_notebook():
    fig = draw()
    save(fig)
    assert plt.fignum_exists(fig.number)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "data" / "table.csv").write_text("a,b\n1,3\n"), "data/table.csv has changed"),
        (lambda root: (root / "data" / "table.csv").unlink(), "data/table.csv does not exist"),
        (lambda root: (root / "data" / "results" / "c.json").write_text("{}"), "data/results has changed"),
        (lambda root: (root / "data" / "results" / "b.json").unlink(), "data/results has changed"),
        (lambda root: (root / "figures" / "accuracy.pdf").unlink(), "accuracy.pdf is missing"),
        (lambda root: (root / "figures" / "other.png").touch(), "other.png has no sidecar"),
    ],
)
def test_stale_figures_are_found(repository, change, said):
    save(draw())
    assert figures.check_sidecars() == []
    change(repository)
    (found,) = figures.check_sidecars()
    assert said in found


def test_trials_are_written_elsewhere(repository, monkeypatch):
    monkeypatch.setenv("BNN_FIGURES", "build/figures")  # relative to the repository, wherever a notebook runs
    monkeypatch.chdir(repository / "data")
    save(draw())
    assert (repository / "build" / "figures" / "accuracy.pdf").exists()
    assert not paths.FIGURES.exists()


def test_mistakes_are_named(repository, tmp_path_factory, monkeypatch):
    fig = draw()
    outside = tmp_path_factory.mktemp("elsewhere") / "result.json"
    outside.write_text("{}")
    for match, options in [
        ("nothing.csv does not exist", {"sources": ["data/nothing.csv"]}),
        ("names no source", {"sources": []}),
        ("cannot see it", {"alt": " "}),
        ("the notebook that makes it", {"made_by": ""}),
        ("outside the repository", {"sources": [outside]}),
    ]:
        with pytest.raises(UserError, match=match):
            save(fig, **options)
    assert not paths.FIGURES.exists()  # nothing half done
    paths.FIGURES.write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot write"):
        save(fig)
    monkeypatch.setenv("BNN_FIGURES", "build/figures")
    save(fig, sources=[outside])  # a trial may use trial results


def test_families_look_different():
    looks = [tuple(figures.look(family).values())[:2] for family in figures.FAMILIES]
    assert len(set(looks)) == len(looks)
    own = [color for color, _ in looks if color != figures.GREY]
    assert len(set(own)) == len(own)
    assert figures.look("Tern.") == figures.look("ternary")
    with pytest.raises(UserError, match=r"family 'Ternary' is unknown; use one of float"):
        figures.look("Ternary")


@pytest.mark.parametrize("seed", range(5))
def test_labels_cover_neither_each_other_nor_points(seed):
    rng = np.random.default_rng(seed)
    x, y, others = 10 ** rng.uniform(-1, -0.8, 9), rng.uniform(0, 1, 9), rng.uniform((0.1, 0), (0.2, 1), (6, 2))
    fig, ax = plt.subplots(layout="constrained")
    ax.scatter([*x, *others[:, 0], 5], [*y, *others[:, 1], 0])
    ax.set(xscale="log", ylim=(-3, 1.2))
    figures.label_points(ax, x, y, [f"network {i} (3)" for i in range(9)], others)
    fig.canvas.draw()
    # the text alone: the extent of an annotation has its arrow in it
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
    assert len(boxes) == 9
    assert not any(a.shrunk(0.98, 0.9).overlaps(b.shrunk(0.98, 0.9)) for i, a in enumerate(boxes) for b in boxes[:i])
    points = ax.transData.transform([*zip(x, y, strict=True), *others])
    assert not any(box.shrunk(0.98, 0.9).contains(*point) for box in boxes for point in points)
    plt.close(fig)
