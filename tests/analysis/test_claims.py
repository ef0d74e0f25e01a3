"""The claims ledger: complete, sourced, judged from results alone, and the README says what it says."""

import collections
import json
import math
import re
import statistics
import sys

import pandas as pd
import pytest

from bnnlib import UserError, files, paths, studies
from bnnlib.analysis import claims, claims_table
from bnnlib.cli import commands
from bnnlib.energy import energy_uj, memory_uj
from bnnlib.report import claims_text
from bnnlib.specs import ModelSpec


@pytest.fixture(scope="module")
def judged():
    return claims.judge().set_index("id")


@pytest.fixture(scope="module")
def points():
    table = pd.read_csv(paths.DATA / "paper_pareto_points.csv", dtype=str, keep_default_na=False)
    assert len(table) == 37
    return table


# --- the table -------------------------------------------------------------------------------------------------------

GOOD = {
    "id": "a", "dataset": "mnist", "group": "g", "claim": "It is so", "point": "", "own": "",
    "kind": "accuracy", "network": "L1T", "protocol": "short", "paper_value": "99.0", "unit": "percent",
    "reading_error": "0.005", "reading_why": "read",
    "not_comparable": "", "how": "read", "source": "somewhere", "note": "",
}  # fmt: skip


def table(*rows):
    return pd.DataFrame(rows, columns=claims_table.COLUMNS)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"source": " "}, "source is missing"),
        ({"how": ""}, "how '' is not one of"),
        ({"how": "guessed"}, "how 'guessed' is not one of"),
        ({"reading_why": ""}, "reading_why is missing"),
        ({"kind": "speed"}, "kind 'speed' is not one of"),
        ({"dataset": "svhn"}, "dataset 'svhn' is not one of"),
        ({"paper_value": ""}, "is not a number"),
        ({"point": "L1T"}, "own '' is not yes or no for a point of the figure"),
        ({"own": "yes"}, "own 'yes' is not yes or no for a point of the figure, and empty for another claim"),
        ({"paper_value": "inf"}, "is not a number"),
        ({"reading_error": "-0.1"}, "is not a number of at least 0"),
        ({"network": "L7T"}, "network 'L7T' is not what a claim of kind accuracy needs"),
        ({"network": "L1T or L7T"}, "network 'L7T' is not"),
        ({"network": "float / binary"}, "network 'float / binary' is not what a claim of kind accuracy needs"),
        ({"kind": "ratio"}, "network 'L1T' is not what a claim of kind ratio needs"),
        ({"protocol": ""}, "protocol '' is not one of the studies at full size"),
        ({"dataset": "cifar10", "protocol": "reduced"}, "protocol 'reduced' is not one of the studies at full size"),
    ],
)
def test_a_bad_row_is_refused(tmp_path, change, said):
    table(GOOD, GOOD | {"id": "b"} | change).to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        claims_table.read(tmp_path / "claims.csv")
    assert "line 3 (b)" in str(error.value) and "\n" not in str(error.value)


def test_a_good_table_is_read_and_an_id_occurs_once(tmp_path):
    path = tmp_path / "claims.csv"
    table(GOOD, GOOD | {"id": "b"}).to_csv(path, index=False)
    assert list(claims_table.read(path)["id"]) == ["a", "b"]
    table(GOOD, GOOD).to_csv(path, index=False)
    with pytest.raises(UserError, match="the id was given before"):
        claims_table.read(path)
    table(GOOD).drop(columns="how").to_csv(path, index=False)
    with pytest.raises(UserError, match="it needs id, dataset"):
        claims_table.read(path)


@pytest.mark.parametrize("kind, value", [("accuracy", "accuracy_percent"), ("energy", "energy_uj")])
def test_every_plotted_point_is_a_claim_with_its_numbers(points, kind, value):
    of_figure = claims_table.read().query("point != ''")
    uncertainty = value.replace("_", "_uncertainty_")
    drawn = collections.Counter(zip(points["dataset"], points[value], points[uncertainty], strict=True))
    rows = of_figure[of_figure["kind"] == kind]
    claimed = collections.Counter(zip(rows["dataset"], rows["paper_value"], rows["reading_error"], strict=True))
    assert claimed == drawn
    assert len(of_figure) == 2 * len(points)


def test_a_point_is_compared_with_the_network_that_the_figure_draws(points):
    ledger = claims_table.read()
    for point in points[points["own"] == "yes"].to_dict("records"):
        spec = ModelSpec(point["arch"], point["weights"], point["acts"], int(point["width"]))
        same = (ledger["dataset"] == point["dataset"]) & (ledger["paper_value"] == point["accuracy_percent"])
        rows = ledger[same & (ledger["own"] == "yes")]
        candidates = {name for names in rows["network"] for name in names.split(" or ")}
        networks = studies.STUDIES[claims_table.STUDIES[point["dataset"]][0]].networks
        if "variant unknown" in point["note"]:
            assert "not trained here" in rows["note"].iloc[0] and len(candidates) > 1
        else:
            assert spec in [networks[name] for name in candidates], point
        if " or " in point["variant"] or "one of" in point["variant"]:
            assert all(" or " in names for names in rows["network"]), point


def test_derived_numbers_follow_from_their_sources(points):
    value = claims_table.read().set_index("id")["paper_value"]
    released = pd.read_csv(paths.DATA / "released_validation_curves.csv")
    for network in ("float", "binary"):
        curve = released.loc[released["epoch"] <= 20, f"lenet5_{network}"]
        assert float(value[f"mnist-curve-{network}"]) == pytest.approx(curve.mean(), abs=0.00051)  # three digits
    number = value.drop(["mnist-ternarization", "cifar10-ternarization"]).astype(float)
    for dataset, binary in (("mnist", "binary"), ("cifar10", "BNN")):
        own = {n: number[f"{dataset}-{n}-accuracy"] for n in ("float", binary)}
        assert number[f"{dataset}-gap-figure"] == pytest.approx(own["float"] - own[binary])
        gap = number[f"{dataset}-released-float"] - number[f"{dataset}-released-binary"]
        assert number[f"{dataset}-gap-released"] == pytest.approx(gap)
        ratio = number[f"{dataset}-float-energy"] / number[f"{dataset}-{binary}-energy"]
        assert number[f"{dataset}-float-binary-energy"] == pytest.approx(ratio, abs=0.05)
    assert number["mnist-saving"] == pytest.approx(0.0730 / 0.021, abs=0.05)
    at_line = points[(points["dataset"] == "mnist") & (points["energy_uj"] == "0.021")]
    best = at_line["accuracy_percent"].astype(float).max()
    assert number["mnist-saving-accuracy"] == pytest.approx(number["mnist-TBN-accuracy"] - best)


def test_the_ranking_rule_gives_the_papers_own_answer_from_the_papers_points(points):
    """Most accuracy for the energy added: the rule, applied to the figure, must say what the abstract says."""
    for dataset, reference in (("mnist", "Arch."), ("cifar10", "BNN")):
        rows = points[points["dataset"] == dataset].astype({"energy_uj": float, "accuracy_percent": float})
        binary = rows[rows["family"] == reference].nsmallest(1, "energy_uj").iloc[0]
        own = rows[(rows["own"] == "yes") & (rows["family"] != "FP")]
        gain = own["accuracy_percent"] - binary["accuracy_percent"]
        better = own[gain > 0].assign(price=gain / (own["energy_uj"] - binary["energy_uj"]))
        best = better.nlargest(1, "price").iloc[0]
        assert "L1T" in best["variant"] and best["family"] == "Tern.", best


# --- the verdicts, from the committed results ------------------------------------------------------------------------


def test_no_verdict_is_empty_and_an_open_one_has_no_result(judged):
    words = {claims.HOLDS, claims.MISSES, claims.UNDECIDED, claims.NOT_COMPARABLE, claims.NOT_RUN}
    assert set(judged["verdict"]) <= words
    explained = judged["detail"].ne("") | judged["verdict"].eq(claims.HOLDS)
    assert explained.all()
    no_training = judged["kind"].isin(["energy", "ratio"])
    assert not judged.loc[no_training, "verdict"].eq(claims.NOT_RUN).any()
    answered = judged["verdict"].isin([claims.HOLDS, claims.MISSES, claims.UNDECIDED])
    assert judged.loc[answered, "ours"].notna().all()
    accurate = judged["verdict"].eq(claims.HOLDS) & judged["kind"].isin(["accuracy", "gap", "curve"])
    assert (judged.loc[accurate, "tolerance"] <= judged.loc[accurate, "dataset"].map(claims.MARGINS)).all()
    assert judged.loc[judged["verdict"].eq(claims.NOT_RUN), "ours"].isna().all()
    mnist_open = judged.index[judged["dataset"].eq("mnist") & judged["verdict"].eq(claims.NOT_RUN)]
    assert set(mnist_open) <= {"mnist-WIDEN8-accuracy"}


def accuracies(study, protocol, measure):
    """Network -> numbers of its seeds, from the files alone."""
    found = collections.defaultdict(list)
    for path in sorted((paths.RESULTS / study).glob(f"*-{protocol}-s*.json")):
        found[path.name.rsplit(f"-{protocol}-s", 1)[0]].append(measure(json.loads(path.read_text())))
    return found


# 97.5 % points of Student's t, from any printed table
T975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 10: 2.228, 20: 2.086, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}


def t975(freedom):
    """Between the entries of the table it is linear in 1 / degrees of freedom, to three digits."""
    if freedom in T975:
        return T975[freedom]
    below = max(f for f in T975 if f < freedom)
    above = min((f for f in T975 if f > freedom), default=None)
    x, y = 1 / below, T975[below]
    x2, y2 = (1 / above, T975[above]) if above else (0, 1.960)
    return y + (y2 - y) * (1 / freedom - x) / (x2 - x)


MEASURES = {
    "accuracy": lambda result: result["test_accuracy"],
    "curve": lambda result: sum(result["history"]["val_accuracy"]) / len(result["history"]["val_accuracy"]),
}


def test_the_numbers_are_those_of_the_result_files(judged):
    checked = collections.Counter()
    for identity, row in judged.iterrows():
        if row["kind"] not in ("accuracy", "curve", "gap") or not row["measured"]:
            continue
        measure = MEASURES["curve" if row["kind"] == "curve" else "accuracy"]
        found = {}
        for study in claims_table.STUDIES[row["dataset"]]:
            found |= accuracies(study, row["protocol"], measure)
        groups = [found[name] for name in row["measured"].split(" - ")]
        means = [statistics.mean(group) for group in groups]
        assert row["ours"] == pytest.approx(means[0] - sum(means[1:])), identity
        assert row["difference"] == pytest.approx(row["ours"] - float(row["paper_value"])), identity
        assert row["n"] == min(map(len, groups)), identity
        if len(groups) == 1 and len(groups[0]) > 1:
            assert row["sd"] == pytest.approx(statistics.stdev(groups[0])), identity
        deviations = [x - statistics.mean(group) for group in found.values() for x in group]
        freedom = sum(len(group) - 1 for group in found.values())
        checked[row["kind"]] += 1
        if not freedom:
            assert pd.isna(row["tolerance"]) and row["verdict"] == claims.UNDECIDED, identity
            continue
        pooled = math.sqrt(sum(d * d for d in deviations) / freedom)
        interval = t975(freedom) * pooled * math.sqrt(sum(1 + 1 / len(group) for group in groups))
        assert row["tolerance"] == pytest.approx(float(row["reading_error"]) + interval, rel=2e-3), identity
    assert checked["accuracy"] >= 18 and checked["gap"] >= 3 and checked["curve"] == 2


def test_the_energies_are_operations_times_the_table(judged):
    """Operation counts by hand: LeNet5 627,200 + 5,120,000 + 819,200 + 5,120; constants of the table in fJ."""
    rows = pd.read_csv(paths.ENERGY / "icmla2020.csv").set_index(["activation", "weight"])["energy_fj"]
    binary = 627_200 * rows["fixed", "binary"] + (5_120_000 + 819_200 + 5_120) * rows["binary", "binary"]
    fixed = 6_571_520 * rows["fixed", "fixed"]
    assert judged.loc["mnist-binary-energy", "ours"] == pytest.approx(binary * 1e-9)
    assert judged.loc["mnist-float-energy", "ours"] == pytest.approx(fixed * 1e-9)
    assert judged.loc["mnist-float-binary-energy", "ours"] == pytest.approx(fixed / binary)
    off = (judged["ours"] - pd.to_numeric(judged["paper_value"], errors="coerce")).abs()
    for identity in judged.index[judged["kind"].isin(["energy", "ratio"]) & judged["not_comparable"].eq("")]:
        row = judged.loc[identity]
        assert (row["verdict"] == claims.HOLDS) == (off[identity] <= float(row["reading_error"]) + 1e-9), identity


# --- the verdicts, from results made here ----------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write results: ``made("L1T", 99.1, 99.3)`` is two seeds of L1T-short on MNIST."""
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))

    def make(network, *values, study="lenet-mnist", protocol="short"):
        spec = studies.runs(study, network, protocol)[0]
        for seed, value in enumerate(values):
            run = spec.but(seed=seed)
            result = {
                "spec_hash": run.hash, "spec": run.as_dict(), "device": "cpu", "best_epoch": 1, "val_accuracy": value,
                "test_accuracy": value, "history": {"val_accuracy": [value - 1, value + 1]},
            }  # fmt: skip
            files.write_json(tmp_path / study / f"{network}-{protocol}-s{seed}.json", result)

    return make


def verdict(**change):
    return claims.judge(table(GOOD | change)).iloc[0]


def test_holds_up_to_the_tolerance_and_misses_beyond(made):
    made("L1T", 98.98, 99.0, 99.02)  # mean 99, sd 0.02, 2 degrees of freedom
    edge = 0.005 + 4.303 * 0.02 * math.sqrt(1 + 1 / 3)
    for sign, word in ((1, "lower"), (-1, "higher")):
        inside = verdict(paper_value=str(99 + sign * (edge - 0.001)))
        assert (inside["verdict"], inside["detail"], inside["n"]) == (claims.HOLDS, "", 3)
        assert (inside["ours"], inside["sd"]) == (pytest.approx(99), pytest.approx(0.02))
        outside = verdict(paper_value=str(99 + sign * (edge + 0.001)))
        assert (outside["verdict"], outside["detail"]) == (claims.MISSES, f"{word} here by 0.11 points")
        assert outside["difference"] == pytest.approx(-sign * (edge + 0.001))


def test_a_tolerance_wider_than_the_margin_decides_nothing_but_a_miss(made):
    made("L1T", 98.9, 99.0, 99.1)
    edge = 0.005 + 4.303 * 0.1 * math.sqrt(1 + 1 / 3)
    assert edge > claims.MARGINS["mnist"]
    near = verdict(paper_value="98.99")
    assert (near["verdict"], near["detail"]) == (claims.UNDECIDED, "higher here by 0.01 points, within 0.50")
    assert verdict(paper_value=str(99 + edge + 0.001))["verdict"] == claims.MISSES
    made("binary", 89.0, 89.2, study="vggnet-cifar10")  # sd 0.14, 1 degree of freedom
    cifar = {"dataset": "cifar10", "network": "binary"}
    assert verdict(**cifar, paper_value="89.1")["verdict"] == claims.UNDECIDED
    made("L1T", 89.9, 89.99, 90.08, study="vggnet-cifar10")  # 3 of them, so that the tolerance is below a point
    assert verdict(**cifar, paper_value="89.1")["verdict"] == claims.HOLDS


def test_the_spread_is_pooled_so_that_one_seed_can_be_judged(made):
    made("L1T", 99.0)
    row = verdict()
    assert (row["verdict"], row["ours"], row["tolerance"]) == (claims.UNDECIDED, 99.0, None)
    assert row["detail"].endswith("by 0.00 points, and no network has a second seed")
    made("TBN", 98.98, 99.0, 99.02, study="comparators-mnist")
    alone = verdict(paper_value="99.1")
    assert (alone["verdict"], alone["n"], alone["sd"]) == (claims.HOLDS, 1, None)
    assert alone["tolerance"] == pytest.approx(0.005 + 4.303 * 0.02 * math.sqrt(2), rel=1e-3)
    assert verdict(paper_value="99.2")["verdict"] == claims.MISSES


def test_without_results_at_full_size_nothing_is_judged(made):
    cifar = {"dataset": "cifar10", "network": "binary or L1T"}
    both = "no result yet: binary, L1T"
    assert verdict(**cifar)["verdict"] == claims.NOT_RUN
    made("binary", 60.0, 61.0, study="vggnet-cifar10", protocol="reduced")
    row = verdict(**cifar)
    assert (row["verdict"], row["ours"], row["detail"]) == (claims.NOT_RUN, None, both)
    assert verdict(**cifar | {"kind": "gap", "network": "binary - L1T"})["detail"] == both
    made("binary", 89.80, 89.82, 89.85, study="vggnet-cifar10")
    assert verdict(**cifar, paper_value="89.85")["verdict"] == claims.HOLDS


def test_candidates_are_all_told_and_one_suffices(made):
    made("L1FP", 99.03, 99.05, 99.07)
    row = verdict(network="L1FP or L1NFP", paper_value="99.05")
    assert (row["verdict"], row["detail"]) == (claims.HOLDS, "as L1FP: agrees; as L1NFP: not yet run")
    made("L1NFP", 97.05, 97.1, 97.15)
    row = verdict(network="L1FP or L1NFP", paper_value="97.1")
    assert (row["verdict"], row["measured"]) == (claims.HOLDS, "L1NFP")
    assert row["detail"] == "as L1FP: higher here by 1.95 points; as L1NFP: agrees"
    row = verdict(network="L1FP or L1NFP", paper_value="98")
    assert (row["verdict"], row["measured"]) == (claims.MISSES, "L1NFP")


def test_another_network_is_not_comparable_with_or_without_results(made):
    row = verdict(not_comparable="an MLP")
    assert (row["verdict"], row["detail"], row["ours"]) == ("not comparable", "an MLP", None)
    made("L1T", 99.0, 99.2)
    row = verdict(not_comparable="an MLP")
    assert (row["verdict"], row["ours"]) == ("not comparable", pytest.approx(99.1))


def test_gap_and_curve(made):
    made("float", 99.48, 99.5, 99.52)
    made("binary", 98.98, 99.0, 99.02)
    sd = 0.02  # of each network, and pooled
    row = verdict(kind="gap", network="float - binary", paper_value="0.5")
    assert (row["verdict"], row["ours"], row["n"]) == (claims.HOLDS, pytest.approx(0.5), 3)
    assert row["sd"] == pytest.approx(sd * math.sqrt(2))
    assert row["tolerance"] == pytest.approx(0.005 + 2.776 * sd * math.sqrt(2 * (1 + 1 / 3)), rel=1e-3)
    made("binary", 97.08, 97.1, 97.12, protocol="paper20")
    row = verdict(kind="curve", network="binary", protocol="paper20", paper_value="97.1")
    assert (row["verdict"], row["ours"]) == (claims.HOLDS, pytest.approx(97.1))


RANK = {"kind": "rank", "network": "", "paper_value": "layer-wise ternary"}


def test_rank_needs_every_kind_and_a_gain_that_is_shown(made):
    made("binary", 98.99, 99.00, 99.01)
    made("L1T", 99.29, 99.30, 99.31)
    assert verdict(**RANK)["verdict"] == claims.NOT_RUN
    made("L1FP", 99.29, 99.30, 99.31)
    made("WIDEN2", 99.29, 99.30, 99.31)
    row = verdict(**RANK)
    assert (row["verdict"], row["measured"], row["ours"]) == (claims.HOLDS, "L1T", "layer-wise ternary")
    assert row["detail"].startswith("L1T gains 0.30 points for 2.7 nJ; the best other, WIDEN2 (width), 0.30 for 31 nJ")
    made("LNFP", 99.00, 99.01, 99.02)  # 0.01 for next to nothing: it would lead, but is not shown
    row = verdict(**RANK)
    assert (row["verdict"], row["measured"]) == (claims.HOLDS, "L1T")
    assert row["detail"].endswith("more for their energy, but not shown: LNFP")
    made("LNFP", 99.19, 99.20, 99.21)
    row = verdict(**RANK)
    assert (row["verdict"], row["measured"], row["ours"]) == (claims.MISSES, "LNFP", "first/last")


def test_rank_without_a_gain_and_with_everything_ternary(made):
    for network in ("binary", "L1T", "L1FP", "WIDEN2"):
        made(network, 98.9, 99.0, 99.1)
    assert verdict(**RANK)["detail"] == "no gain over the binary network has been shown"
    made("TALL", 99.9, 100.0, 100.1)
    row = verdict(**RANK)
    assert (row["verdict"], row["ours"]) == (claims.MISSES, "all ternary")


def test_the_interval_of_the_ranking(made):
    """Two networks are compared, so each interval is one of 97.5 %: t(0.9875, 6) = 2.969."""
    for network, mean in (("binary", 99.0), ("L1T", 99.3), ("L1FP", 99.2)):
        made(network, mean - 0.1, mean, mean + 0.1)
    ranking = claims.ranking("mnist")
    assert list(ranking.index) == ["L1T", "L1FP"] and ranking["shown"].tolist() == [True, False]
    assert ranking.loc["L1T", "low"] == pytest.approx(0.3 - 2.969 * 0.1 * math.sqrt(2 / 3), abs=1e-4)
    assert ranking.loc["L1T", "points_per_uj"] == pytest.approx(0.3 / (627_200 * 4.3e-9), rel=1e-6)


def test_a_result_of_another_spec_stops_it(made, tmp_path):
    made("L1T", 99.0, 99.2)
    path = tmp_path / "lenet-mnist" / "L1T-short-s0.json"
    files.write_json(path, files.read_json(path) | {"spec_hash": "0"})
    with pytest.raises(UserError, match="--overwrite"):
        verdict()


# --- as text ---------------------------------------------------------------------------------------------------------


def marks(name):
    return claims_text.BEGIN.format(name), claims_text.END.format(name)


def test_the_readme_says_what_the_ledger_says(judged):
    text, rows = (paths.ROOT / "README.md").read_text(), judged.reset_index()
    for name, wanted in (("claims", claims_text.readme_table(rows)), ("headlines", claims_text.headlines(rows))):
        begin, end = marks(name)
        assert text.split(begin)[1].split(end)[0].strip() == wanted, "run `bnn claims --readme`"


def test_the_headlines_have_the_numbers_of_the_ledger(judged):
    saving = judged.loc["mnist-saving"]
    line = claims_text.headlines(judged.reset_index()).splitlines()[2]
    assert f"**{saving['ours']:.3g}** times less energy than TBN (paper {saving['paper_value']})" in line
    assert "{" not in line and "n = " in line


def test_the_readmes_saving_and_its_loss_of_accuracy_are_of_one_network():
    """By another way: operations by hand, the table's femtojoules, and the accuracies in the files alone."""
    text = (paths.ROOT / "README.md").read_text()
    found = re.search(
        r"\*\* (L1T|L1NT), binary but .*? takes \*\*([\d.]+)\*\* times .* gives up \*\*(-?[\d.]+) ±", text
    )
    network, ratio, gap = found[1], float(found[2]), float(found[3])
    fj = pd.read_csv(paths.ENERGY / "icmla2020.csv").set_index(["activation", "weight"])["energy_fj"]
    macs = {"conv1": 627_200, "conv2": 5_120_000, "fc1": 819_200, "fc2": 5_120}
    tbn = (macs["conv1"] + macs["fc2"]) * fj["fixed", "fixed"]
    tbn += (macs["conv2"] + macs["fc1"]) * fj["ternary", "binary"]
    last = fj["binary", "ternary" if network == "L1NT" else "binary"]
    own = macs["conv1"] * fj["fixed", "ternary"] + macs["fc2"] * last
    own += (macs["conv2"] + macs["fc1"]) * fj["binary", "binary"]
    assert ratio == pytest.approx(tbn / own, abs=0.005)

    def mean(study, name):
        files = (paths.RESULTS / study).glob(f"{name}-short-s*.json")
        return statistics.mean(json.loads(file.read_text())["test_accuracy"] for file in files)

    assert gap == pytest.approx(mean("comparators-mnist", "TBN") - mean("lenet-mnist", network), abs=0.005)


def test_what_the_readme_says_of_memory():
    text = (paths.ROOT / "README.md").read_text()
    said = re.search(
        r"binary LeNet5 takes ([\d.]+) µJ, L1T ([\d.]+), TBN ([\d.]+), and the\s+second hybrid ([\d.]+),", text
    )
    networks = {
        **studies.STUDIES["lenet-mnist"].networks,
        "TBN": studies.STUDIES["comparators-mnist"].networks["TBN"],
        "together-chosen": studies.STUDIES["together-mnist"].networks["together-chosen"],
    }
    for name, number in zip(("binary", "L1T", "TBN", "together-chosen"), said.groups(), strict=True):
        both = energy_uj(networks[name]) + memory_uj(networks[name])
        assert float(number) == pytest.approx(both, abs=0.6 * 10 ** -len(number.partition(".")[2])), name


def test_claims_of_one_group_are_judged_for_one_network(judged):
    saving, accuracy = judged.loc["mnist-saving"], judged.loc["mnist-saving-accuracy"]
    assert saving["measured"].split()[-1] == accuracy["measured"].split()[-1]


def test_the_shared_candidate_is_the_one_that_fits_both(made):
    made("L1T", 99.28, 99.30, 99.32)
    made("L1NT", 98.78, 98.80, 98.82)
    made("TBN", 99.48, 99.50, 99.52, study="comparators-mnist")
    both = {"group": "both", "paper_value": "3.4", "reading_error": "0.5"}
    gap = (
        GOOD
        | both
        | {"kind": "gap", "network": "TBN - L1T or TBN - L1NT", "paper_value": "0.7", "reading_error": "0.01"}
    )
    ratio = GOOD | both | {"id": "b", "kind": "ratio", "network": "TBN / L1T or TBN / L1NT"}
    rows = claims.judge(table(gap, ratio))
    assert list(rows["measured"]) == ["TBN - L1NT", "TBN / L1NT"] and list(rows["verdict"]) == [claims.HOLDS] * 2
    rows = claims.judge(table(gap | {"paper_value": "0.2"}, ratio))
    assert list(rows["measured"]) == ["TBN - L1T", "TBN / L1T"] and list(rows["verdict"]) == [claims.HOLDS] * 2


def test_a_claim_alone_in_its_group_and_one_without_tolerance_are_judged(made):
    """One candidate suffices where no other claim is about the same network; a ratio may have no reading error."""
    made("L1T", 99.28, 99.30, 99.32)
    made("TBN", 99.48, 99.50, 99.52, study="comparators-mnist")
    gap = GOOD | {"kind": "gap", "network": "TBN - L1T or TBN - L1NT", "paper_value": "0.2"}
    alone = claims.judge(table(gap)).iloc[0]
    assert (alone["verdict"], alone["detail"]) == (claims.HOLDS, "as TBN - L1T: agrees; as TBN - L1NT: not yet run")
    ratio = gap | {"id": "b", "kind": "ratio", "network": "TBN / L1T or TBN / L1NT", "reading_error": "0"}
    three = gap | {"id": "c", "network": "TBN - L1T or TBN - L1NT or TBN - LNT"}
    assert list(claims.judge(table(gap, ratio, three))["verdict"]) == [claims.HOLDS, claims.MISSES, claims.HOLDS]


def test_the_readme_is_written_between_its_marks(judged, tmp_path):
    path, some = tmp_path / "README.md", judged.reset_index()
    (begin, end), (first, last) = marks("claims"), marks("headlines")
    path.write_text(f"before\n{first}\n{last}\nbetween\n{begin}\nstale rows\n{end}\nafter\n")
    assert claims_text.update_readme(some, path)
    text = path.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "stale rows" not in text
    assert not claims_text.update_readme(some, path)
    for wrong in ("none", end + begin, begin * 2 + end, begin + end):
        path.write_text(wrong)
        with pytest.raises(UserError, match="lacks the lines"):
            claims_text.update_readme(some, path)


def test_counts_add_up_and_misses_are_told(judged):
    rows = [
        {"verdict": claims.HOLDS, "difference": 0.1},
        {"verdict": claims.MISSES, "difference": 0.3},
        {"verdict": claims.MISSES, "difference": -0.3},
        {"verdict": claims.UNDECIDED, "difference": 0.1},
        {"verdict": claims.NOT_RUN, "difference": None},
    ]
    said = claims_text.counts(pd.DataFrame(rows))
    assert said == "1 holds, 2 miss (1 higher here, 1 lower here), 1 undecided, 1 not yet run at full size"
    numbers = [int(n) for n in re.findall(r"(?:^|, )(\d+) (?:hold|miss|undecided|not)", claims_text.counts(judged))]
    assert sum(numbers) == len(judged)


def test_numbers_as_text():
    assert claims_text.number(99.283, "accuracy", 0.0571, 5) == "99.28 ± 0.06 % (n = 5)"
    assert claims_text.number(99.53, "accuracy", None, 1) == "99.53 % (n = 1)"
    assert claims_text.number("99.50", "accuracy") == "99.50 %"
    assert claims_text.number(0.0187857, "energy") == "0.01879 µJ"
    assert claims_text.number(67.629, "ratio") == "67.6"
    assert claims_text.number(math.nan, "energy") == claims_text.number(None, "gap") == "-"


def test_the_command(monkeypatch, capsys, judged):
    def bnn(*arguments):
        monkeypatch.setattr(sys, "argv", ["bnn", "claims", *arguments])
        commands.main()
        return capsys.readouterr().out

    monkeypatch.setattr(claims, "judge", lambda: judged.reset_index())
    lines = bnn().splitlines()
    assert len(lines) == len(judged) + 2
    assert lines[-1] == f"{len(judged)} claims: {claims_text.counts(judged)}"
    listed = {row["id"]: row for row in json.loads(bnn("--json"))}
    assert list(listed) == list(judged.index)
    assert listed["mnist-binary-accuracy"]["ours"] == pytest.approx(judged.loc["mnist-binary-accuracy", "ours"])
    assert listed["mnist-binary-energy"]["sd"] is None
    assert bnn("--readme") == "README.md: the table was up to date\n"
