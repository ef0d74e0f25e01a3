"""What the tables leave out or assume, as factors on the energy: wires, glitches, clock, registers, held weights."""

import datetime
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
from tqdm import tqdm

from bnnlib.hardware import netlist, power, simulate, synthesis
from bnnlib.hardware.cells import Library
from bnnlib.hardware.characterize import SEEDS, parse_pairs
from bnnlib.hardware.glitch import glitches
from bnnlib.hardware.netlist import Netlist
from bnnlib.hardware.verilog import Unit

PAIRS, LENGTH = "bxb,txb,txt,4x4,8x8,hxh,4xb,8xb,hxb,4xt,8xt,hxt", 64
MOST_BITS = 5_000  # product bits of a unit that signals are let travel through; beyond, it takes minutes
CYCLES, STREAMS = 10, 256
SINKS = 16  # registers behind one buffer of the clock
COLUMNS = [
    "library", "activation", "weight", "vector_length", "option", "energy_fj", "low_fj", "high_fj", "factor",
    "how", "source", "note", "date", "command",
]  # fmt: skip


@lru_cache(maxsize=2)
def _mapped(unit: Unit, library: Library) -> Netlist:
    return netlist.from_json(synthesis.synthesise(unit, library), library)


def _bare(unit: Unit, library: Library, registers: bool = False, held: bool = False, wire: bool = True) -> list[float]:
    unit = Unit(unit.act, unit.weight, unit.length, registers)
    mapped = _mapped(unit, library)
    times, found = power.timing(mapped, wire), []
    for seed in range(SEEDS):
        given = simulate.stimulus(unit, CYCLES, STREAMS, seed, fresh=(1.0, 0.0 if held else 1.0))
        found.append(power.energy(mapped, simulate.run(unit, mapped, given), times).total)
    return found


def _glitching(unit: Unit, library: Library, reject: float) -> list[float]:
    mapped = _mapped(unit, library)
    times, found = power.timing(mapped), []
    for seed in range(SEEDS):
        given = simulate.stimulus(unit, CYCLES, STREAMS, seed)
        found.append(power.energy(mapped, glitches(unit, mapped, given, times, reject), times).total)
    return found


def _clock_tree(unit: Unit, library: Library) -> list[float]:
    """With a tree of the library's smallest buffers, each in front of SINKS registers or buffers, over all levels."""
    mapped = _mapped(unit, library)
    buffer = library.smallest(1, 0b10)
    registers = sum(n for name, n in mapped.counts().items() if library.cells[name].state)
    clock_pin = max(c.capacitance[c.state[0]] for c in mapped.cells if c.state)
    load, slew = np.array(SINKS * clock_pin), np.array(library.slew_ps)
    own = np.mean([arc.at(slew, load) for arc in buffer.internal if arc.pin == buffer.outputs[0]])
    edge = 0.5 * library.voltage**2 * buffer.capacitance[buffer.inputs[0]] + own
    buffers = level = -(-registers // SINKS)
    while level > 1:
        level = -(-level // SINKS)
        buffers += level
    return [bare + 2 * buffers * float(edge) for bare in _bare(unit, library)]


OPTIONS: dict[str, tuple[str, Callable[[Unit, Library], list[float]]]] = {
    "base": ("as in the table", _bare),
    "no wires": ("pins' capacitances alone", lambda u, lib: _bare(u, lib, wire=False)),
    "weights held": ("the weights stay, the activations change", lambda u, lib: _bare(u, lib, held=True)),
    "operand registers": ("both operands behind flip-flops, clocked every cycle", lambda u, lib: _bare(u, lib, True)),
    "registers, weights held": ("both; the weights' registers are clocked", lambda u, lib: _bare(u, lib, True, True)),
    "glitches": ("gates swallow pulses shorter than their delay", lambda u, lib: _glitching(u, lib, 1.0)),
    "glitches, half": ("gates swallow pulses shorter than half their delay", lambda u, lib: _glitching(u, lib, 0.5)),
    "clock tree": (f"a buffer of the clock for every {SINKS} registers, and for every {SINKS} buffers", _clock_tree),
}  # fmt: skip


def table(library: Library, command: str) -> pd.DataFrame:
    """All options of some pairs at one vector length: fJ per MAC over SEEDS seeds, the mean as a factor on the base."""
    rows = []
    units = [Unit(act, weight, LENGTH) for act, weight in parse_pairs(PAIRS)]
    for unit in tqdm(units, unit="unit", disable=None):
        base = None
        for name, (note, make) in OPTIONS.items():
            if name.startswith("glitches") and unit.length * len(unit.product.exponents) > MOST_BITS:
                continue
            seeds = np.array(make(unit, library)) / unit.length
            mean = float(seeds.mean())
            base = base or mean
            rows.append([
                library.name, unit.act.name, unit.weight.name, unit.length, name,
                *(float(f"{e:.5g}") for e in (mean, seeds.min(), seeds.max())), round(mean / base, 4),
                "synthesised", f"{library.name} (sha256 {library.sha256[:12]}); {synthesis.version()}", note,
                datetime.date.today().isoformat(), command,
            ])  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
