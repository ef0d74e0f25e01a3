"""Cell libraries: what a cell computes, its capacitances, and its power and delay tables, from Liberty files.

Units here: fF, V, ps, fJ (internal power tables are in capacitance times voltage squared), nW.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bnnlib.errors import UserError
from bnnlib.hardware import logic
from bnnlib.hardware.liberty import Group, parse, read

SCALE = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}


@dataclass(frozen=True)
class Table:
    """A look-up table over the transition time of an input (ps) and the load of an output (fF)."""

    slews: np.ndarray
    loads: np.ndarray
    values: np.ndarray  # [slews, loads]

    def at(self, slew: np.ndarray, load: np.ndarray) -> np.ndarray:
        """Bilinear between the points, constant outside."""
        i, u = _place(self.slews, slew)
        j, v = _place(self.loads, load)
        i1, j1 = np.minimum(i + 1, len(self.slews) - 1), np.minimum(j + 1, len(self.loads) - 1)
        low = self.values[i, j] * (1 - v) + self.values[i, j1] * v
        high = self.values[i1, j] * (1 - v) + self.values[i1, j1] * v
        return low * (1 - u) + high * u


def _place(points: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(points) == 1:
        return np.zeros(np.shape(x), int), np.zeros(np.shape(x))
    i = np.clip(np.searchsorted(points, x, side="right") - 1, 0, len(points) - 2)
    return i, np.clip((x - points[i]) / (points[i + 1] - points[i]), 0, 1)


@dataclass(frozen=True)
class Arc:
    """One table of a cell: of the input ``related`` (or of a pin by itself) for a share of the other inputs' states."""

    pin: str
    related: str
    share: float
    tables: tuple[Table, ...]  # rise and fall

    def at(self, slew: np.ndarray, load: np.ndarray) -> np.ndarray:
        """Mean of rise and fall."""
        return sum(table.at(slew, load) for table in self.tables) / len(self.tables)


@dataclass(frozen=True)
class Cell:
    """A cell of a library.

    Args:
        area: um^2.
        leakage_nw: mean over its states.
        capacitance: fF of each input.
        functions: truth table of each output over ``inputs``, bit i for the inputs that spell i, first input lowest.
        state: for a flip-flop, (clock pin, data pin); ``functions`` is then 1 for an output with the state, 0 inverted.
        ties: inputs of a flip-flop that are held at a value, so that it is never set or cleared.
        internal: fJ a toggle of an output, by related input; pin ``related == ""``: a toggle of that input by itself.
        delay, transition: ps of the arcs from inputs to outputs.
    """

    name: str
    area: float
    leakage_nw: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    capacitance: dict[str, float]
    functions: dict[str, int]
    state: tuple[str, str] | None
    ties: dict[str, int]
    internal: tuple[Arc, ...]
    delay: tuple[Arc, ...]
    transition: tuple[Arc, ...]


class Library:
    """The cells of one or more Liberty files whose functions are known.

    Args:
        name: for tables and messages.
        paths: the files, gzipped or not.
    """

    def __init__(self, name: str, paths: tuple[Path, ...]) -> None:
        self.name, self.paths = name, paths
        self.cells: dict[str, Cell] = {}
        digest = hashlib.sha256()
        for path in paths:
            data = read(path)
            digest.update(data)
            top = parse(data.decode(errors="replace"), path)
            self.voltage = float(top.values["nom_voltage"])
            units = _units(top)
            templates = {g.args.strip('" '): g for g in top.all("lu_table_template", "power_lut_template")}
            for group in top.all("cell"):
                cell = _cell(group, templates, units)
                if cell is not None:
                    self.cells[cell.name] = cell
        self.sha256 = digest.hexdigest()
        if not self.cells:
            raise UserError(f"{paths[0]} has no cell with a function; is it a Liberty file of standard cells?")

    @cached_property
    def slew_ps(self) -> float:
        """A usual transition time: an inverter's behind itself, which inputs of the unit are given."""
        inverter = self.smallest(1, 0b01)
        arc = next(a for a in inverter.transition)
        slew = np.array(0.0)
        for _ in range(8):
            slew = arc.at(slew, np.array(4 * inverter.capacitance[inverter.inputs[0]]))
        return float(slew)

    def smallest(self, inputs: int, function: int) -> Cell:
        """The smallest cell of one output with this truth table."""
        found = [
            c for c in self.cells.values()
            if not c.state and len(c.inputs) == inputs and len(c.outputs) == 1 and c.functions[c.outputs[0]] == function
        ]  # fmt: skip
        if not found:
            raise UserError(f"library {self.name} has no cell of {inputs} inputs with truth table {function:b}")
        return min(found, key=lambda c: (c.area, c.name))


def _units(top: Group) -> dict[str, float]:
    """What one unit of the file is in fF, ps, nW and fJ."""
    number, unit = top.values["capacitive_load_unit"].replace('"', "").split(",")
    farad = float(number) * SCALE[unit.strip().lower()[:-1]]

    def seconds_or_watts(name: str) -> float:
        number, unit = re.fullmatch(r"([\d.]+)\s*([a-z]*)", top.values[name].lower()).groups()
        return float(number) * SCALE[unit[:-1]]

    units = {"fF": farad * 1e15, "ps": seconds_or_watts("time_unit") * 1e12}
    volt = float(re.match(r"[\d.]+", top.values["voltage_unit"])[0])
    return units | {"nW": seconds_or_watts("leakage_power_unit") * 1e9, "fJ": farad * volt**2 * 1e15}


def _numbers(text: str) -> np.ndarray:
    return np.array([float(x) for x in re.findall(r"[-+\d.eE]+", text)])


def _table(group: Group, templates: dict[str, Group], units: dict[str, float], unit: str) -> Table:
    template = templates.get(group.args.strip('" '), Group("", ""))
    values = _numbers(group.values["values"]) * units[unit]
    axes = {}
    for k in (1, 2):
        variable = template.values.get(f"variable_{k}", "")
        points = group.values.get(f"index_{k}", template.values.get(f"index_{k}"))
        if points is not None and variable:
            axes["load" if "capacitance" in variable else "slew"] = _numbers(points)
    if len(values) == 1:
        axes = {}
    shape = tuple(len(points) for points in axes.values())
    values = values.reshape(shape or (1,))
    slews, loads = axes.get("slew", np.zeros(1)) * units["ps"], axes.get("load", np.zeros(1)) * units["fF"]
    if list(axes) == ["load", "slew"]:
        values = values.T
    return Table(slews, loads, values.reshape(len(slews), len(loads)))


def _arcs(pin: str, groups: list[Group], names: tuple[str, str], inputs, templates, units, unit) -> list[Arc]:
    """The tables of a pin by related input; those of several supplies are added, as one toggle draws from all."""
    found: dict[tuple, dict[str, list[Table]]] = {}
    for group in groups:
        key = group.values.get("related_pin", ""), group.values.get("when", "")
        for table in group.all(*names):
            found.setdefault(key, {}).setdefault(table.name, []).append(_table(table, templates, units, unit))
    arcs = []
    for related in dict.fromkeys(key[0] for key in found):
        states = {when: tables for (name, when), tables in found.items() if name == related}
        if len(states) > 1:
            states.pop("", None)  # the default of states that are all listed
        for when, tables in states.items():
            share = logic.share(when) if when else 1.0
            summed = tuple(_sum(same) for same in tables.values())
            arcs += [Arc(pin, name, share, summed) for name in related.replace('"', "").split() or [""]]
    return arcs


def _sum(tables: list[Table]) -> Table:
    first = tables[0]
    return Table(first.slews, first.loads, sum(table.values for table in tables))


def _cell(group: Group, templates: dict[str, Group], units: dict[str, float]) -> Cell | None:
    """A cell, or None where it is no gate and no plain flip-flop."""
    pins = {pin.args.strip('" '): pin for pin in group.all("pin")}
    outputs = [name for name, pin in pins.items() if pin.values.get("direction") == "output"]
    inputs = tuple(name for name, pin in pins.items() if pin.values.get("direction") == "input")
    flip = next(group.all("ff"), None)
    if not outputs or not inputs or any("function" not in pins[name].values for name in outputs):
        return None
    if next(group.all("latch", "statetable"), None) or any("three_state" in pins[name].values for name in outputs):
        return None
    state, ties, functions = None, {}, {}
    if flip is not None:
        keys = ("clocked_on", "next_state", "clear", "preset")
        clock, data, *resets = (re.sub(r"[()\s]", "", flip.values.get(name, "")) for name in keys)
        inverted = data.lstrip("!") if data.startswith("!") else data.rstrip("'")
        ties = {reset.strip("!'"): int(reset.strip("!'") != reset) for reset in resets if reset}
        if {clock, inverted, *ties} != set(inputs) or len(inputs) != 2 + len(ties):
            return None
        names = [name.strip(' "') for name in flip.args.split(",")]
        plain = {re.sub(r"[()\s]", "", pins[name].values["function"]): name for name in outputs}
        if not set(plain) <= set(names):
            return None
        state = clock, inverted
        functions = {name: int((text == names[0]) == (inverted == data)) for text, name in plain.items()}
    elif len(inputs) <= 6:
        functions = {name: logic.truth_table(pins[name].values["function"], inputs) for name in outputs}
    else:
        return None
    internal, delay, transition = [], [], []
    for name, pin in pins.items():
        powers = list(pin.all("internal_power"))
        internal += _arcs(name, powers, ("rise_power", "fall_power", "power"), inputs, templates, units, "fJ")
        edges = ("", "combinational", "rising_edge", "falling_edge", "combinational_rise", "combinational_fall")
        times = [t for t in pin.all("timing") if t.values.get("timing_type", "") in edges]
        delay += _arcs(name, times, ("cell_rise", "cell_fall"), inputs, templates, units, "ps")
        transition += _arcs(name, times, ("rise_transition", "fall_transition"), inputs, templates, units, "ps")
    capacitance = {name: float(pins[name].values["capacitance"]) * units["fF"] for name in inputs}
    area, leakage_nw = float(group.values.get("area", 0)), _leakage(group) * units["nW"]
    return Cell(
        group.args.strip('" '), area, leakage_nw, inputs, tuple(outputs), capacitance, functions, state, ties,
        tuple(internal), tuple(delay), tuple(transition),
    )  # fmt: skip


def _leakage(group: Group) -> float:
    """Mean over the states of a cell, summed over its supplies."""
    if "cell_leakage_power" in group.values:
        return float(group.values["cell_leakage_power"])
    states: dict[str, float] = {}
    for one in group.all("leakage_power"):
        when = one.values.get("when", "")
        states[when] = states.get(when, 0.0) + float(one.values["value"])
    return sum(states.values()) / len(states) if states else 0.0
