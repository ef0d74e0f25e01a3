"""Energy: what a table says, and that tables times MACs give the paper's figure."""

import math

import numpy as np
import pandas as pd
import pytest

from bnnlib import ModelSpec, UserError, build, paths, studies
from bnnlib.energy import HOW, bit_fj, energy_fj, energy_uj, load_table, memory_fj, memory_uj, profile, table_names

LENET = ModelSpec("lenet5", "bbbb", "bbb")
VGGNET = ModelSpec("vggnet7", "b" * 9, "b" * 8)
SMALL = [spec for study in studies.STUDIES.values() for spec in study.networks.values() if spec.width == 1]
POINTS = pd.read_csv(paths.DATA / "paper_pareto_points.csv", dtype={"weights": str, "acts": str})
OWN = POINTS[POINTS["own"] == "yes"]


def spec_of(point) -> ModelSpec:
    return ModelSpec(point.arch, point.weights, point.acts, int(point.width))


# the paper's numbers


@pytest.mark.parametrize(
    ("spec", "expected_uj", "last_digit"),
    [
        (VGGNET, 0.690, 0.001),
        (VGGNET.but(weights="8bbbbbbbb"), 0.917, 0.001),
        (VGGNET.but(weights="tbbbbbbbb"), 0.7035, 0.0001),
        (VGGNET.but(acts="tttttttt"), 1.436, 0.001),
        (VGGNET.but(acts="tbbbbbbt"), 0.884, 0.001),
        (VGGNET.but(acts="ttbbbbtt"), 0.982, 0.001),
        (VGGNET.but(weights="tbbbbbbbt", acts="tbbbbbbt"), 0.897, 0.001),
        (VGGNET.but(weights="ttttttttt", acts="tttttttt"), 1.552, 0.001),
        (VGGNET.but(weights="fffffffff", acts="ffffffff"), 46.7, 0.1),
        (VGGNET.but(weights="888888888", acts="88888888"), 46.7, 0.1),
        (LENET, 0.0188, 0.0001),
        (LENET.but(weights="8bbb"), 0.0643, 0.0001),
        (LENET.but(weights="tbbb"), 0.0215, 0.0001),
        (LENET.but(weights="tttt", acts="ttt"), 0.0314, 0.0001),
        (LENET.but(weights="ffff", acts="fff"), 0.597, 0.001),
    ],
)
def test_totals_of_the_paper(spec, expected_uj, last_digit):
    assert energy_uj(spec) == pytest.approx(expected_uj, abs=last_digit)


def test_every_own_network_of_the_figure_is_there():
    assert OWN.groupby(["dataset", "family"]).size().to_dict() == {
        ("cifar10", "Arch."): 2, ("cifar10", "FP"): 1, ("cifar10", "First/Last"): 3, ("cifar10", "Tern."): 8,
        ("mnist", "Arch."): 4, ("mnist", "FP"): 1, ("mnist", "First/Last"): 3, ("mnist", "Tern."): 7,
    }  # fmt: skip


@pytest.mark.parametrize("point", list(OWN.itertuples()), ids=lambda p: f"{p.weights}-{p.acts}-x{p.width:.0f}")
def test_own_networks_of_the_figure(point):
    """CIFAR-10 within 0.5 %; MNIST within the figure's rounding to nanojoules and the reading error of 0.3 %."""
    tolerance = 0.005 * point.energy_uj if point.dataset == "cifar10" else point.energy_uncertainty_uj
    assert energy_uj(spec_of(point)) == pytest.approx(point.energy_uj, abs=tolerance)


def test_comparators_that_the_paper_costs_as_these_networks():
    comparators = POINTS[(POINTS["own"] == "no") & POINTS["arch"].notna()]
    assert len(comparators) == 5
    for point in comparators.itertuples():
        assert energy_uj(spec_of(point)) == pytest.approx(point.energy_uj, rel=0.01), point.family


def test_bounds_are_those_that_the_figure_leaves():
    """Smallest and largest constant for which, the others free, every own network is within its uncertainty."""
    from scipy.optimize import linprog

    kinds = {"float": "fixed", "fixed8": "fixed"}
    profiles = [profile(spec_of(point)) for point in OWN.itertuples()]
    shares = [p.groupby([p["act"].replace(kinds), p["weight"].replace(kinds)])["macs"].sum() * 1e-9 for p in profiles]
    shares = pd.DataFrame(shares).fillna(0)
    energy, error = OWN["energy_uj"].to_numpy(), OWN["energy_uncertainty_uj"].to_numpy()
    table = load_table("icmla2020")
    for pair in [("fixed", "fixed"), ("fixed", "ternary"), ("fixed", "binary"),
                 ("ternary", "ternary"), ("ternary", "binary"), ("binary", "binary")]:  # fmt: skip
        goal = np.array([column == pair for column in shares.columns], float)
        within = np.vstack([shares, -shares]), np.concatenate([energy + error, error - energy])
        low, high = (linprog(sign * goal, *within, bounds=(0, 200)).x @ goal for sign in (1, -1))
        assert table.cost(*pair, 1, "low_fj") == pytest.approx(low, rel=1e-3)
        assert table.cost(*pair, 1, "high_fj") == pytest.approx(high, rel=1e-3)


# tables


def test_derived_rows_of_horowitz45():
    """Every row anew from the operations that Horowitz gives, by the formulas of data/energy/README.md."""
    operations = pd.read_csv(paths.ENERGY / "operations45.csv").set_index(["operation", "bits"])["energy_pj"] * 1000
    quadratic = np.linalg.solve([[8**2, 8], [32**2, 32]], operations["int multiply"][[8, 32]])

    def add(bits):
        return operations["int add", 32] / 32 * bits

    def multiply(bits):
        return quadratic @ [bits**2, bits]

    def derive(act, weight, length):  # energy, low, high
        for bits in (16, 32):
            if {act, weight} <= {"float" + "16" * (bits == 16)}:
                return [operations["float multiply", bits] + operations["float add", bits]] * 3
        few = [operand for operand in (weight, act) if operand in ("binary", "ternary")]
        if "float" in (act, weight):
            energy = operations["float multiply", 32] + operations["float add", 32]
            gate = (0.3 if few[0] == "binary" else 0.6) * add(1) if few else operations["float multiply", 32]
            return [energy, gate + operations["float add", 32], energy]
        width = {"binary": 1, "ternary": 2}
        a, w = (width.get(operand) or int(operand.removeprefix("fixed")) for operand in (act, weight))
        if not few:
            product = multiply(math.sqrt(a * w))
            energy = product + operations["int add", 32]
            return [energy, min(energy, product + add(a + w + 1)), energy]
        other = a if few[0] == weight else w
        gate = (0.3 if few[0] == "binary" else 0.6) * add(other)
        bits = max(a, w)
        return [gate + add(bits + math.log2(length)), gate + add(bits + 1), gate + operations["int add", 32]]

    rows = load_table("horowitz45").rows
    assert len(rows) == 65 and set(rows["vector_length"].dropna()) == {16, 65536}
    for row in rows.itertuples():
        derived = derive(row.activation, row.weight, row.vector_length)
        assert [row.energy_fj, row.low_fj, row.high_fj] == pytest.approx(derived, rel=1e-5), row


def test_horowitz45_anchors():
    table = load_table("horowitz45")
    assert [table.cost(o, o, 1152) for o in ("fixed8", "fixed32", "float16", "float")] == [300, 3200, 1500, 4600]
    # XNOR 0.3 add(1), then an accumulator of 1 + log2(1024) bits
    assert table.cost("binary", "binary", 1024) == pytest.approx(0.9375 + 3.125 * 11)
    assert table.cost("fixed8", "ternary", 1024) == pytest.approx(2 * 0.3 * 25 + 3.125 * 18)


def test_vector_length_is_interpolated_in_its_logarithm_and_constant_outside():
    cost = load_table("horowitz45").cost
    assert cost("binary", "binary", 4) == cost("binary", "binary", 16)
    assert cost("binary", "binary", 10**6) == cost("binary", "binary", 65536)
    assert cost("binary", "binary", 32) - cost("binary", "binary", 16) == pytest.approx(3.125)
    assert cost("binary", "binary", 48) == pytest.approx(0.9375 + 3.125 * (1 + math.log2(48)))
    paper = load_table("icmla2020").cost
    assert paper("binary", "binary", 9) == paper("binary", "binary", 9999) == 1.24


@pytest.mark.parametrize("spec", [*SMALL, LENET.but(weights="4822", acts="t48")], ids=lambda s: f"{s.weights}-{s.acts}")
def test_both_tables_cost_every_network_of_the_studies(spec):
    rows = profile(spec)
    for table in ("icmla2020", "horowitz45"):
        low, energy, high = (energy_fj(rows, table, column).sum() for column in ("low_fj", "energy_fj", "high_fj"))
        assert 0 < low <= energy <= high
        assert energy_uj(rows, table) == pytest.approx(energy * 1e-9)


def test_energy_of_a_model_a_spec_and_a_profile():
    rows = profile(LENET)
    assert energy_uj(build(LENET)) == energy_uj(LENET) == energy_uj(rows) == energy_uj(rows, load_table("icmla2020"))
    rows.index = [7, 5, 3, 1]
    assert energy_fj(rows, "icmla2020").index.tolist() == [7, 5, 3, 1]
    assert energy_fj(rows).iloc[0] == pytest.approx(627_200 * 18.2)


def test_unknown_table_names_those_there_are():
    with pytest.raises(UserError, match=r"energy table 'icmla2021' is unknown; use one of .*horowitz45, icmla2020"):
        load_table("icmla2021")
    with pytest.raises(UserError, match="'memory45' is unknown"):
        energy_uj(LENET, "memory45")
    with pytest.raises(UserError, match="memory table 'nope' is unknown"):
        memory_uj(LENET, "nope")


def test_missing_pair_is_named_with_the_tables_that_have_it():
    with pytest.raises(UserError, match=r"'horowitz45' has no .* fixed8 x weight fixed3; .*: icmla2020$"):
        energy_uj(LENET.but(weights="3bbb"), "horowitz45")
    with pytest.raises(UserError, match=r"'icmla2020' has no energy for .* float16 .*; .*: horowitz45$"):
        load_table("icmla2020").cost("float16", "float16", 9)
    with pytest.raises(UserError, match="no table in data/energy has it"):
        load_table("icmla2020").cost("float16", "binary", 9)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A folder of tables of one's own: a function that writes one and loads it."""
    monkeypatch.setattr(paths, "ENERGY", tmp_path)

    def write(*lines):
        header = "activation,weight,vector_length,energy_fj,low_fj,high_fj,how,source,note"
        (tmp_path / "own.csv").write_text("\n".join([header, *lines]) + "\n")
        return load_table("own")

    return write


def test_an_exact_width_goes_before_any_width(tables):
    line = "{},{},,{},1,99,read,a book,"
    pairs = [("fixed", "fixed", 4), ("fixed8", "fixed", 3), ("fixed8", "fixed8", 2)]
    table = tables(*(line.format(*pair) for pair in pairs))
    assert [table.cost("fixed8", w, 9) for w in ("fixed8", "fixed4")] == [2, 3]
    assert [table.cost("fixed4", w, 9) for w in ("fixed8", "fixed4")] == [4, 4]
    assert tables(line.format("fixed", "fixed", 5)).cost("fixed4", "fixed4", 9) == 5, "a changed table is read anew"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["binary,binary,,2,1,3,read,,"], r"own.csv line 2 \(binary, binary, nan\): source is missing"),
        (["binary,binary,,2,1,3,,a book,"], "how is not one of read, digitised, derived, synthesised"),
        (["binary,binary,,2,1,3,guessed,a book,"], "how is not one of"),
        (["binary,binary,,2,3,3,read,a book,"], "0 < low_fj <= energy_fj <= high_fj does not hold"),
        (["binary,binary,,much,1,3,read,a book,"], "0 < low_fj <= energy_fj <= high_fj does not hold"),
        (["binary,binary,,,,,read,a book,"], "0 < low_fj <= energy_fj <= high_fj does not hold"),
        (["binary,binray,,2,1,3,read,a book,"], "weight is not an operand"),
        (["binary,binary,,2,1,3,read,a book,"] * 2, "line 3 .* the pair was given before"),
        (["binary,binary,8,2,1,3,read,a book,", "binary,binary,,2,1,3,read,a book,"], "vector_length is missing"),
        (["binary,binary,0,2,1,3,read,a book,"], "vector_length is missing or not possible"),
    ],
)
def test_a_damaged_table_is_refused_with_the_line(tables, lines, message):
    with pytest.raises(UserError, match=message):
        tables(*lines)


def test_every_committed_row_says_its_unit_how_and_source():
    files = [path for path in paths.DATA.rglob("*.csv") if paths.DATA / "downloads" not in path.parents]
    files = [
        path for path in files if path.stem not in ("literature", "compatibility", "libraries")
    ]  # no numbers of energy or accuracy
    assert {path.stem for path in files} >= {"paper_pareto_points", "released_validation_curves", *table_names()}
    for path in files:
        rows = pd.read_csv(path)
        in_name = any(column.endswith(("_fj", "_pj", "_uj", "_percent")) for column in rows.columns)
        assert in_name or rows["unit"].notna().all(), f"{path} has rows without unit"
        assert rows["how"].isin(HOW).all(), f"{path} has rows that do not say how their numbers were obtained"
        assert rows["source"].notna().all(), f"{path} has rows without source"


# memory, which is apart


def test_memory_is_never_in_the_energy_of_the_macs():
    rows = profile(LENET)
    assert energy_uj(rows) == pytest.approx((rows["macs"] * [18.2, 1.24, 1.24, 1.24]).sum() * 1e-9)
    assert memory_uj(rows) == pytest.approx(memory_fj(rows).to_numpy().sum() * 1e-9)


def test_memory_by_hand():
    rows = profile(LENET)
    weights = 876_320 * bit_fj(876_320)
    bits = [6272, 6272, 1600, 512]  # conv1's input and output are the largest pair, 1.5 KB
    assert memory_fj(rows)["weights_fj"].sum() == pytest.approx(weights)
    assert memory_fj(rows)["activations_fj"].tolist() == pytest.approx([2 * n * 10_000 / 64 for n in bits])


def test_cost_of_a_bit_by_size():
    kb = 8 * 1024
    assert [bit_fj(size * kb) * 64 for size in (1, 8, 32, 1024)] == pytest.approx([10_000, 10_000, 20_000, 100_000])
    assert bit_fj(16 * kb) * 64 == pytest.approx(10_000 * 2**0.5)
    assert bit_fj(1025 * kb) * 64 == pytest.approx(1_950_000)
    assert bit_fj(0) * 64 == pytest.approx(10_000)
