"""Toggles with glitches: signals that travel through gates with delays.

Time goes in ticks. A gate's output takes a new value when its function has had it for a share ``reject`` of the gate's
delay, and shows it one delay after the change: shorter pulses are swallowed (inertial delay). With ``reject`` 1 a gate
swallows all pulses shorter than its delay, which real gates do about; with 0 none (transport delay).
"""

import numpy as np

from bnnlib.errors import UserError
from bnnlib.hardware.netlist import Netlist
from bnnlib.hardware.power import Timing
from bnnlib.hardware.simulate import (
    WARM_UP,
    Operations,
    Stimulus,
    inputs,
    next_state,
    operations,
    reset,
    settle,
    word_function,
)
from bnnlib.hardware.verilog import Unit
from bnnlib.kernels.compiling import compiled

TICKS = 6  # of the median delay


@compiled
def _travel(values, out, table, size, pins, delay, window, ticks, toggles):
    """Let a change at the sources run through the gates; True if all is quiet at the end."""
    gates, words = len(out), values.shape[1]
    depth = delay.max() + 1
    past = np.empty((gates, depth, words), np.uint64)  # functions at the last ticks, a ring
    for g in range(gates):
        for w in range(words):
            past[g, :, w] = values[out[g], w]
    fresh = np.empty((gates, words), np.uint64)
    changed = np.ones(values.shape[0], np.bool_)  # nets, in the last tick
    steady = delay + 1  # ticks since a gate's function changed; past its delay, its output has followed
    still = 0
    for t in range(ticks):
        now, last = t % depth, (t - 1 + depth) % depth
        for g in range(gates):
            touched = False
            for k in range(size[g]):
                touched |= changed[pins[g, k]]
            steady[g] += 1
            for w in range(words):
                v = word_function(values, pins[g], size[g], table[g], w) if touched else past[g, last, w]
                if v != past[g, last, w]:
                    steady[g] = 0
                past[g, now, w] = v
        for g in range(gates):
            if steady[g] > delay[g]:
                continue
            for w in range(words):
                ones, zeros = ~np.uint64(0), ~np.uint64(0)
                for s in range(window[g] + 1):
                    v = past[g, (t - delay[g] + s + depth) % depth, w]
                    ones &= v
                    zeros &= ~v
                old = values[out[g], w]
                fresh[g, w] = ones | (old & ~zeros)
        changed[:] = False
        still += 1
        for g in range(gates):
            if steady[g] > delay[g]:
                continue
            for w in range(words):
                change = fresh[g, w] ^ values[out[g], w]
                if change:
                    still = 0
                    changed[out[g]] = True
                    for b in range(64):
                        toggles[out[g]] += np.int64((change >> np.uint64(b)) & np.uint64(1))
                    values[out[g], w] = fresh[g, w]
        if still > depth:  # nothing is on its way any more
            break
    return still > 0


def in_ticks(netlist: Netlist, ops: Operations, times: Timing, reject: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Of each operation its delay and how long it must have a value to show it; and how long all take, in ticks."""
    where = {int(net): (g, k) for g, row in enumerate(netlist.outs) for k, net in enumerate(row) if net >= 0}
    delays = np.array([times.delay[where[int(net)]] for net in ops.out])
    tick = np.median(delays) / TICKS
    delay = np.maximum(1, np.rint(delays / tick)).astype(np.int64)
    window = np.rint(reject * delay).astype(np.int64)
    return delay, window, int(3 * times.critical_ps / tick) + int(delay.max())


def glitches(unit: Unit, netlist: Netlist, given: Stimulus, times: Timing, reject: float) -> np.ndarray:
    """Toggles of each net per cycle, glitches included, in the mean over cycles and streams.

    Args:
        reject: share of a gate's delay below which it swallows pulses.

    Raises:
        UserError: the unit did not settle to what it computes without delays.
    """
    ops = operations(netlist)
    delay, window, ticks = in_ticks(netlist, ops, times, reject)
    cycles, streams, _ = given.acts.shape
    values, toggles = reset(netlist, ops, streams), np.zeros(netlist.nets, np.int64)
    for t in range(cycles):
        settled = values.copy()
        if t:
            settled[ops.state] = next_state(values, ops)
        for port, words in inputs(unit, given, t).items():
            settled[netlist.ports[port]] = words
        counted = np.zeros(netlist.nets, np.int64)
        sources = np.bitwise_count(settled ^ values).sum(1, dtype=np.int64)
        values[:] = settled
        settle(settled, ops.out, ops.table, ops.size, ops.pins)
        if t == 0:  # gates start settled
            values[:] = settled
            continue
        if (
            not _travel(values, ops.out, ops.table, ops.size, ops.pins, delay, window, ticks, counted)
            or (values != settled).any()
        ):
            raise UserError(f"unit {unit.act.name} x {unit.weight.name}, N = {unit.length} does not settle with delays")
        if t >= WARM_UP:
            toggles += counted + sources
    return toggles / ((cycles - WARM_UP) * streams)
