"""Values and toggles of a netlist, for many random streams at once.

A net's values are bits of words, one bit a stream. ``run`` settles every cycle at once, without glitches (for these see
``glitch``), and checks the accumulator against integer arithmetic.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from bnnlib.errors import UserError
from bnnlib.hardware.netlist import ONE, Netlist
from bnnlib.hardware.verilog import Unit

WARM_UP = 2  # cycles that are not counted
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Stimulus:
    """Operands of each cycle and stream.

    Args:
        acts, weights: integers [cycles, streams, length].
    """

    acts: np.ndarray
    weights: np.ndarray


def stimulus(
    unit: Unit, cycles: int, streams: int, seed: int, zeros: tuple[float, float] = (1 / 3, 1 / 3),
    fresh: tuple[float, float] = (1.0, 1.0),
) -> Stimulus:  # fmt: skip
    """Random operands.

    Args:
        zeros: share of zeros of a ternary activation and weight.
        fresh: share of activations and weights that are drawn anew each cycle; 0 for stationary ones.
    """
    rng = np.random.default_rng(seed)
    found = []
    for operand, share, new in zip((unit.act, unit.weight), zeros, fresh, strict=True):
        values = operand.random(rng, (cycles, streams, unit.length), share)
        for t in range(1, cycles if new < 1 else 0):
            keep = rng.random(values[t].shape) >= new
            values[t][keep] = values[t - 1][keep]
        found.append(values)
    return Stimulus(*found)


def dot_products(unit: Unit, given: Stimulus) -> np.ndarray:
    """What the accumulator holds after each cycle, as integers modulo its size, [cycles, streams]; it starts at 0."""
    dots = np.einsum("tsn,tsn->ts", given.acts.astype(np.int64), given.weights.astype(np.int64))
    p = unit.product
    counted = (dots + unit.length * p.offset) // p.scale
    return np.cumsum(counted, axis=0) % (1 << unit.bits)


def pack(bits: np.ndarray) -> np.ndarray:
    """Bool [streams, k] to words [k, streams / 64]."""
    return np.ascontiguousarray(np.packbits(bits.T, axis=1, bitorder="little")).view(np.uint64)


@dataclass(frozen=True)
class Operations:
    """The gates of a netlist as one list of single-output functions, inputs first."""

    out: np.ndarray
    table: np.ndarray
    size: np.ndarray
    pins: np.ndarray
    data: np.ndarray  # of registers: the net at the data input, at the output, and whether that is inverted
    state: np.ndarray
    inverted: np.ndarray


def operations(netlist: Netlist) -> Operations:
    """Gates and registers of a netlist for the kernels here."""
    out, table, size, pins, data, state, inverted = [], [], [], [], [], [], []
    for cell, gates in netlist.groups:
        for k, name in enumerate(cell.outputs):
            used = gates[netlist.outs[gates, k] >= 0]
            if cell.state:
                data += list(netlist.pins[used, cell.inputs.index(cell.state[1])])
                state += list(netlist.outs[used, k])
                inverted += [not cell.functions[name]] * len(used)
            else:
                out += list(netlist.outs[used, k])
                table += [cell.functions[name]] * len(used)
                size += [len(cell.inputs)] * len(used)
                pins += list(netlist.pins[used])
    return Operations(
        np.array(out, np.int32), np.array(table, np.uint64), np.array(size, np.int32), np.array(pins, np.int32),
        np.array(data, np.int32), np.array(state, np.int32), np.array(inverted, bool),
    )  # fmt: skip


@njit(error_model="numpy", cache=True)
def word_function(values, pins, size, table, w):
    """A truth table of the bits of some nets, a word at once."""
    result = np.uint64(0)
    for m in range(1 << size):
        if (table >> np.uint64(m)) & np.uint64(1):
            term = ~np.uint64(0)
            for j in range(size):
                v = values[pins[j], w]
                term &= v if (m >> j) & 1 else ~v
            result |= term
    return result


@njit(error_model="numpy", cache=True)
def settle(values, out, table, size, pins):
    """Values of all gates, inputs first."""
    for g in range(len(out)):
        for w in range(values.shape[1]):
            values[out[g], w] = word_function(values, pins[g], size[g], table[g], w)


def run(unit: Unit, netlist: Netlist, given: Stimulus) -> np.ndarray:
    """Toggles of each net per cycle, in the mean over cycles and streams, without glitches.

    Raises:
        UserError: in some cycle an accumulator is not what integer arithmetic gives.
    """
    ops = operations(netlist)
    cycles, streams, _ = given.acts.shape
    values, toggles = reset(netlist, ops, streams), np.zeros(netlist.nets, np.int64)
    cleared = values[ops.state]
    expected = dot_products(unit, given)
    lag = 1 + unit.registers  # clock edges from the operands to the accumulator
    wrong = 0
    for t in range(cycles):
        state = next_state(values, ops) if t else cleared
        if unit.registers and t == 1:  # what the operand registers held at first was no operand
            sums = np.isin(ops.state, _accumulator(netlist, ops))
            state[sums] = cleared[sums]
        before = values.copy() if t >= WARM_UP else None
        values[ops.state] = state
        for port, words in inputs(unit, given, t).items():
            values[netlist.ports[port]] = words
        settle(values, ops.out, ops.table, ops.size, ops.pins)
        if before is not None:
            toggles += np.bitwise_count(values ^ before).sum(1, dtype=np.int64)
        if t >= lag:
            wrong += int((_integers(values[netlist.ports["acc"]]) != expected[t - lag]).sum())
    if wrong:
        raise UserError(
            f"unit {unit.act.name} x {unit.weight.name}, N = {unit.length}: {wrong} of {(cycles - lag) * streams} sums "
            "are wrong; the netlist does not compute a dot product"
        )
    return toggles / ((cycles - WARM_UP) * streams)


def reset(netlist: Netlist, ops: Operations, streams: int) -> np.ndarray:
    """Words of all nets, [nets, streams / 64], the registers cleared."""
    values = np.zeros((netlist.nets, streams // 64), np.uint64)
    values[ONE] = FULL
    values[ops.state] = np.where(ops.inverted[:, None], FULL, np.uint64(0))
    return values


def next_state(values: np.ndarray, ops: Operations) -> np.ndarray:
    return np.where(ops.inverted[:, None], ~values[ops.data], values[ops.data])


def inputs(unit: Unit, given: Stimulus, t: int) -> dict[str, np.ndarray]:
    """The words of both ports in a cycle."""
    both = {"a": (unit.act, given.acts[t]), "w": (unit.weight, given.weights[t])}
    return {port: pack(operand.code(x).reshape(len(x), -1)) for port, (operand, x) in both.items()}


def _accumulator(netlist: Netlist, ops: Operations) -> np.ndarray:
    """The state nets behind the accumulator: its own, or those that an inverter turns into it."""
    wanted = set(netlist.ports["acc"].tolist())
    wanted |= {
        int(pins[0]) for out, pins, size in zip(ops.out, ops.pins, ops.size, strict=True) if size == 1 and out in wanted
    }
    return np.array(sorted(wanted))


def _integers(words: np.ndarray) -> np.ndarray:
    """Words [bits, streams / 64], lowest bit first, as integers [streams]."""
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").astype(np.int64)
    return (bits << np.arange(len(bits))[:, None]).sum(0)
