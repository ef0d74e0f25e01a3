"""A mapped unit as arrays: nets, gates in an order in which inputs come first, registers."""

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bnnlib.errors import UserError
from bnnlib.hardware.cells import Cell, Library

MOST_PINS = 6
ZERO, ONE = 0, 1  # nets that never change
PARTS = ("operands", "registers", "products", "tree", "accumulator")  # of a unit; an instance's name begins like one
LETTERS = "".join(part[0] for part in PARTS)


@dataclass
class Netlist:
    """Cells of a library, connected.

    Args:
        library: of the cells.
        cells: the kinds that occur.
        kind: [gates] index into ``cells``.
        pins: [gates, MOST_PINS] the net at each input of ``cells[kind].inputs``, else -1.
        outs: [gates, 2] the net at each output of ``cells[kind].outputs``, else -1.
        part: [gates] index into PARTS.
        level: [gates] 0 for registers; else more than that of any gate that drives it.
        ports: nets of ``clk``, ``a``, ``w`` and ``acc``, lowest bit first.
        nets: how many, ZERO and ONE included.
    """

    library: Library
    cells: list[Cell]
    kind: np.ndarray
    pins: np.ndarray
    outs: np.ndarray
    part: np.ndarray
    level: np.ndarray
    ports: dict[str, np.ndarray]
    nets: int

    @cached_property
    def groups(self) -> list[tuple[Cell, np.ndarray]]:
        """Gates of one level and cell, in order of levels; registers first."""
        keys = self.level.astype(np.int64) * len(self.cells) + self.kind
        order = np.argsort(keys, kind="stable")
        cuts = np.flatnonzero(np.diff(keys[order])) + 1
        return [(self.cells[self.kind[group[0]]], group) for group in np.split(order, cuts)]

    @cached_property
    def area(self) -> float:
        """um^2 of all cells."""
        return float(sum(self.cells[k].area for k in self.kind))

    @cached_property
    def leakage_nw(self) -> float:
        return float(sum(self.cells[k].leakage_nw for k in self.kind))

    def counts(self) -> dict[str, int]:
        """How many of each cell."""
        return {cell.name: int((self.kind == k).sum()) for k, cell in enumerate(self.cells)}

    @cached_property
    def net_part(self) -> np.ndarray:
        """[nets] the part that drives a net; ports are operands."""
        found = np.zeros(self.nets, int)
        for column in self.outs.T:
            found[column[column >= 0]] = self.part[column >= 0]
        return found


def from_json(module: dict, library: Library) -> Netlist:
    """The netlist of a module in yosys' JSON.

    Raises:
        UserError: a cell is none of the library, or gates form a loop.
    """
    number: dict[int | str, int] = {"0": ZERO, "x": ZERO, "1": ONE}

    def net(bit: int | str) -> int:
        return number.setdefault(bit, len(number) - 1) if not isinstance(bit, str) else number[bit]

    ports = {name: np.array([net(bit) for bit in port["bits"]]) for name, port in module["ports"].items()}
    names: dict[str, int] = {}
    kind, pins, outs, part = [], [], [], []
    for name, one in module["cells"].items():
        cell = library.cells.get(one["type"])
        if cell is None and one["type"] in ("_const0_", "_const1_"):
            number[one["connections"]["z"][0]] = int(one["type"] == "_const1_")
            continue
        if cell is None:
            raise UserError(f"the netlist has a cell {one['type']}, which library {library.name} has not")
        connected = {pin: net(bits[0]) for pin, bits in one["connections"].items() if bits}
        part.append(LETTERS.index(re.search(rf"([{LETTERS}])_[nr]\d", name)[1]))
        kind.append(names.setdefault(cell.name, len(names)))
        pins.append([connected[pin] for pin in cell.inputs] + [-1] * (MOST_PINS - len(cell.inputs)))
        outs.append([connected.get(pin, -1) for pin in cell.outputs] + [-1] * (2 - len(cell.outputs)))
    cells = [library.cells[name] for name in names]
    pins, outs, kind = np.array(pins), np.array(outs), np.array(kind)
    registers = np.array([cell.state is not None for cell in cells])[kind]
    level = _levels(pins, outs, registers)
    return Netlist(library, cells, kind, pins, outs, np.array(part), level, ports, len(number) - 1)


def _levels(pins: np.ndarray, outs: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """The level of each gate: one more than the highest that drives it, 0 for registers."""
    readers, waiting = defaultdict(list), np.zeros(len(pins), int)
    drivers = {net: g for g, row in enumerate(outs) for net in row if net >= 0 and not registers[g]}
    for g, row in enumerate(pins):
        if not registers[g]:
            for net in row:
                if net in drivers:
                    readers[drivers[net]].append(g)
                    waiting[g] += 1
    level = np.where(registers, 0, 1)
    ready = [g for g in np.flatnonzero(~registers) if not waiting[g]]
    done = len(ready)
    while ready:
        g = ready.pop()
        for reader in readers[g]:
            level[reader] = max(level[reader], level[g] + 1)
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
                done += 1
    if done != (~registers).sum():
        raise UserError("the netlist has a loop of gates without a register")
    return level
