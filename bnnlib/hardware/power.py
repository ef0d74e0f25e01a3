"""Energy of a unit from the toggles of its nets: femtojoules per cycle, by part and by cause.

    switching   1/2 C V^2 a toggle; C of the inputs that the net drives, and of its wire
    internal    the library's internal power: of an output's toggle, and of an input's where the library lists it
    clock       both edges of the clock at every register: its input's capacitance and internal power
    leakage     of all cells over one clock period, the unit's critical path

Delays and transition times come from the library's tables (mean of rise and fall; the critical path takes the slower).
A table that depends on the state of other inputs counts by the share of states in which it applies.
"""

from dataclasses import dataclass

import numpy as np

from bnnlib.hardware.cells import Arc, Cell
from bnnlib.hardware.netlist import PARTS, Netlist

# fF/um of a wire, about the same in all nodes (R. Ho, K. Mai, M. Horowitz, Proc. IEEE 89, 2001, doi 10.1109/5.920580)
WIRE_FF_UM = 0.2
UTILIZATION = 0.7  # share of the chip's area that cells take


@dataclass(frozen=True)
class Timing:
    """Of each net: load fF, transition time ps, arrival ps. Of each gate's outputs: mean delay ps, [gates, 2]."""

    load: np.ndarray
    wire: np.ndarray
    slew: np.ndarray
    arrival: np.ndarray
    delay: np.ndarray

    @property
    def critical_ps(self) -> float:
        return float(self.arrival.max())


def timing(netlist: Netlist, wire: bool = True) -> Timing:
    """Loads of all nets and delays through all gates."""
    pins = np.zeros(netlist.nets)
    load = np.zeros(netlist.nets)
    for cell, gates in netlist.groups:
        for k, name in enumerate(cell.inputs):
            np.add.at(load, netlist.pins[gates, k], cell.capacitance[name])
            np.add.at(pins, netlist.pins[gates, k], 1)
    pitch = np.sqrt(netlist.area / len(netlist.kind) / UTILIZATION)  # each pin lies one cell further
    wires = WIRE_FF_UM * pitch * pins * wire
    load += wires
    slew = np.full(netlist.nets, netlist.library.slew_ps)
    arrival = np.zeros(netlist.nets)
    delay = np.zeros((len(netlist.kind), 2))
    for cell, gates in netlist.groups:
        for k, name in enumerate(cell.outputs):
            used = gates[netlist.outs[gates, k] >= 0]
            out = netlist.outs[used, k]
            means, worst = [], np.zeros(len(used))
            for arc in _of(cell, cell.delay, name):
                source = netlist.pins[used, cell.inputs.index(arc.related)]
                edges = [table.at(slew[source], load[out]) for table in arc.tables]
                start = 0.0 if cell.state else arrival[source]
                worst = np.maximum(worst, start + np.max(edges, axis=0))
                means.append(np.mean(edges, axis=0))
            if means:
                delay[used, k] = np.mean(means, axis=0)
            arrival[out] = worst
            ramps = [
                a.at(slew[netlist.pins[used, cell.inputs.index(a.related)]], load[out])
                for a in _of(cell, cell.transition, name)
            ]
            if ramps:
                slew[out] = np.mean(ramps, axis=0)
    return Timing(load, wires, slew, arrival, delay)


def _of(cell: Cell, arcs: tuple[Arc, ...], pin: str) -> list[Arc]:
    return [arc for arc in arcs if arc.pin == pin and arc.related in cell.inputs]


@dataclass(frozen=True)
class Energy:
    """Femtojoules per cycle.

    Args:
        switching, internal, clock, leakage: by cause.
        wire: the part of switching and clock that charges wires.
        parts: by part of the unit: operands (the nets that bring them), their registers, products, tree, accumulator,
            clock. A net counts to the part that drives it.
    """

    switching: float
    internal: float
    clock: float
    leakage: float
    wire: float
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return self.switching + self.internal + self.clock + self.leakage


def energy(netlist: Netlist, toggles: np.ndarray, times: Timing) -> Energy:
    """Energy per cycle.

    Args:
        toggles: of each net per cycle, from ``simulate.run`` or ``glitch.glitches``.
        times: from ``timing``.
    """
    clock_net = netlist.ports["clk"]
    half = 0.5 * netlist.library.voltage**2
    toggles = toggles.copy()
    toggles[clock_net] = 0
    nets = half * toggles * times.load
    gates, clock = np.zeros(len(netlist.kind)), half * 2 * float(times.load[clock_net].sum())
    for cell, group in netlist.groups:
        for k, name in enumerate(cell.outputs):
            used = group[netlist.outs[group, k] >= 0]
            out = netlist.outs[used, k]
            gates[used] += toggles[out] * _of_output(cell, name, netlist, used, out, times)
        for k, name in enumerate(cell.inputs):
            own = [arc for arc in cell.internal if arc.pin == name and not arc.related]
            pins = netlist.pins[group, k]
            each = sum((a.share * a.at(times.slew[pins], np.zeros(len(pins))) for a in own), np.zeros(len(pins)))
            if cell.state and name == cell.state[0]:
                clock += 2 * float(each.sum())
            else:
                gates[group] += toggles[pins] * each
    leakage = netlist.leakage_nw * times.critical_ps * 1e-6
    parts = {
        name: float(nets[netlist.net_part == i].sum() + gates[netlist.part == i].sum()) for i, name in enumerate(PARTS)
    }
    wire = half * float(toggles @ times.wire + 2 * times.wire[clock_net].sum())
    return Energy(float(nets.sum()), float(gates.sum()), clock, leakage, wire, parts | {"clock": clock})


def _of_output(
    cell: Cell, name: str, netlist: Netlist, gates: np.ndarray, out: np.ndarray, times: Timing
) -> np.ndarray:
    """fJ of one toggle of an output of some gates: the mean over its inputs, for each over the states."""
    by_input: dict[str, list[Arc]] = {}
    for arc in cell.internal:
        if arc.pin == name:
            by_input.setdefault(arc.related, []).append(arc)
    found = []
    for related, states in by_input.items():
        nets = netlist.pins[gates, cell.inputs.index(related)] if related in cell.inputs else out
        weights = np.array([arc.share for arc in states]) / sum(arc.share for arc in states)
        each = [arc.at(times.slew[nets], times.load[out]) for arc in states]
        found.append(np.tensordot(weights, each, 1))
    return np.mean(found, axis=0) if found else np.zeros(len(gates))
