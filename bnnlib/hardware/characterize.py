"""Femtojoules per MAC of dot-product units: a row per operand pair and vector length, as an energy table holds them."""

import datetime
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from bnnlib.energy import COLUMNS
from bnnlib.errors import UserError
from bnnlib.hardware import netlist, power, simulate, synthesis
from bnnlib.hardware.cells import Library
from bnnlib.hardware.coding import Operand
from bnnlib.hardware.verilog import Unit

CODES = {"b": "binary", "t": "ternary", "2": "fixed2", "4": "fixed4", "8": "fixed8", "h": "fixed16"}
PAIRS = ("bxb", "txb", "bxt", "txt", "2x2", "4x4", "8x8", "hxh", "8xb", "8xt", "bx8", "tx8")
LENGTHS = (16, 25, 64, 256, 1024, 4608)  # LeNet5's first layer has 25, VGGNet7's widest 4,608
MOST_BITS = 42_000  # product bits of a unit that "all" goes to; the law reaches beyond
SEEDS, CYCLES, STREAMS = 3, 10, 256
CAUSES = ("switching", "internal", "clock", "leakage", "wire")  # wire is a part of the first and the third
PARTS = ("operands", "products", "tree", "accumulator")
MORE = ["seeds", "area_um2", "leakage_nw", "delay_ps", *(f"{name}_fj" for name in (*CAUSES, *PARTS)), "date", "command"]
TOLERANCE = 0.03


def parse_pairs(text: str) -> list[tuple[Operand, Operand]]:
    """Operand pairs, activation first: ``bxb,8xb`` or ``all``.

    Raises:
        UserError: a code is unknown.
    """
    names = PAIRS if text == "all" else [name.strip() for name in text.split(",")]
    pairs = []
    for name in names:
        act, found, weight = name.partition("x")
        if not found or act not in CODES or weight not in CODES:
            raise UserError(f"pair {name!r} is unknown; use all, or some of {','.join(PAIRS)}")
        pairs.append((Operand.named(CODES[act]), Operand.named(CODES[weight])))
    return pairs


def parse_lengths(text: str) -> list[int]:
    """Vector lengths: ``16,64``.

    Raises:
        UserError: one is not possible.
    """
    numbers = [part.strip() for part in text.split(",")]
    for number in numbers:
        if not number.isdigit() or int(number) < 2:
            raise UserError(f"length {number!r} is not possible; use whole numbers from 2 on, such as 16,64")
    return [int(number) for number in numbers]


def units(pairs: Sequence[tuple[Operand, Operand]], lengths: Sequence[int]) -> list[Unit]:
    """All pairs in all lengths but those with more than MOST_BITS product bits."""
    made = [Unit(act, weight, n) for (act, weight), n in itertools.product(pairs, lengths)]
    return [unit for unit in made if unit.length * len(unit.product.exponents) <= MOST_BITS]


def measure(unit: Unit, library: Library) -> tuple[netlist.Netlist, power.Timing, list[power.Energy]]:
    """A unit's netlist, its delays, and its energy per cycle with each seed's operands; every sum is checked."""
    mapped = netlist.from_json(synthesis.synthesise(unit, library), library)
    times = power.timing(mapped)
    found = []
    for seed in range(SEEDS):
        toggles = simulate.run(unit, mapped, simulate.stimulus(unit, CYCLES, STREAMS, seed))
        found.append(power.energy(mapped, toggles, times))
    return mapped, times, found


def row(unit: Unit, library: Library, command: str) -> dict:
    """One row of an energy table."""
    mapped, times, found = measure(unit, library)
    a_mac = [energy.total / unit.length for energy in found]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) / unit.length

    numbers = {
        "area_um2": mapped.area,
        "leakage_nw": mapped.leakage_nw,
        "delay_ps": times.critical_ps,
        **{f"{name}_fj": mean([getattr(e, name) for e in found]) for name in CAUSES},
        **{f"{name}_fj": mean([e.parts[name] for e in found]) for name in PARTS},
    }
    return {
        "activation": unit.act.name, "weight": unit.weight.name, "vector_length": unit.length,
        "energy_fj": _digits(np.mean(a_mac)), "low_fj": _digits(min(a_mac)), "high_fj": _digits(max(a_mac)),
        "how": "synthesised",
        "source": f"{library.name} (sha256 {library.sha256[:12]}), {library.voltage:g} V; {synthesis.version()}",
        "note": "operands from outside, new every cycle; zeros 1/3; no glitches",
        "seeds": len(found), **{name: _digits(value) for name, value in numbers.items()},
        "date": datetime.date.today().isoformat(), "command": command,
    }  # fmt: skip


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


def table(todo: Sequence[Unit], library: Library, command: str) -> pd.DataFrame:
    """The rows of some units, with a progress bar."""
    rows = [row(unit, library, command) for unit in tqdm(todo, unit="unit", disable=None)]
    return pd.DataFrame(rows, columns=[*COLUMNS, *MORE])


def compare(made: pd.DataFrame, committed: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Each unit, and how far its new energy lies from the committed one, as a share; NaN without a committed row."""
    keys = ["activation", "weight", "vector_length"]
    both = made.merge(committed, how="left", on=keys, suffixes=("", "_committed"))
    for one in both.itertuples():
        name = f"{one.activation} x {one.weight}, N = {one.vector_length:g}"
        yield name, one.energy_fj / one.energy_fj_committed - 1
