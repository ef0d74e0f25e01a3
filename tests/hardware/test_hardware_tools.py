"""The simulator against Icarus Verilog, delays and leakage against OpenSTA; skipped where these are not installed.

NOTE: Debian's OpenSTA (2019) ignores activities that are set at a gate's pins and adds the internal power of all inputs
of a gate for each toggle, so that its dynamic power cannot be compared; energy is checked by hand in test_hardware.
"""

import re
import shutil
import subprocess

import numpy as np
import pytest

from bnnlib import UserError
from bnnlib.hardware import catalogue, characterize, glitch, netlist, power, simulate, synthesis
from bnnlib.hardware.netlist import ONE, ZERO
from bnnlib.hardware.verilog import Unit

PAIRS = ("bxb", "txt")


def tool(name: str) -> str:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"no {name} here: install Debian's package {'opensta' if name == 'sta' else name}")
    return path


@pytest.fixture(scope="module")
def osu018():
    try:
        synthesis.find_yosys()
        return catalogue.load("osu018")
    except UserError as error:
        pytest.skip(str(error))


def mapped(pair: str, library) -> tuple[Unit, netlist.Netlist]:
    ((act, weight),) = characterize.parse_pairs(pair)
    unit = Unit(act, weight, 16)
    return unit, netlist.from_json(synthesis.synthesise(unit, library), library)


def name(net: int) -> str:
    return {ZERO: "1'b0", ONE: "1'b1"}.get(int(net), f"n{net}")


# Icarus Verilog: the same netlist as continuous assignments with inertial delays


def bench(ops: simulate.Operations, nets: int, delay: np.ndarray, vectors: list, settled: int) -> str:
    """A test bench: for each vector the old sources are let settle, then the new ones; one vector lasts 2 settled."""
    sources = sorted(set(range(2, nets)) - set(ops.out.tolist()))
    lines = ["module bench;", *(f"  reg {name(n)};" for n in sources), *(f"  wire {name(n)};" for n in ops.out)]
    for out, table, size, pins, ticks in zip(ops.out, ops.table, ops.size, ops.pins, delay, strict=True):
        terms = [
            " & ".join(("" if m >> j & 1 else "~") + name(pins[j]) for j in range(size))
            for m in range(1 << int(size))
            if int(table) >> m & 1
        ]
        lines.append(f"  assign #{ticks} {name(out)} = {' | '.join(f'({term})' for term in terms)};")
    lines.append('  initial begin $dumpfile("bench.vcd"); $dumpvars(0, bench);')
    for before, after in vectors:
        for values in (before, after):
            lines += [f"    {name(n)} = {values[n]};" for n in sources] + [f"    #{settled};"]
    return "\n".join([*lines, "    $finish; end", "endmodule\n"])


def changes(vcd: str, settled: int) -> dict[str, int]:
    """Changes of each net in the second half of every vector, one at most at each time."""
    names = dict(re.findall(r"\$var \w+\s+1 (\S+) (\S+) \$end", vcd))
    found, values, time = dict.fromkeys(names.values(), 0), {}, 0
    at_time: dict[str, str] = {}

    def count() -> None:
        for code, value in at_time.items():
            if value != values.get(code) and time // settled % 2:
                found[names[code]] += 1
        values.update(at_time)
        at_time.clear()

    for line in vcd[vcd.index("$enddefinitions") :].splitlines()[1:]:
        if line.startswith("#"):
            count()
            time = int(line[1:])
        elif line[:1] in "01x" and line[1:] in names:
            at_time[line[1:]] = line[0]
    count()
    return found


@pytest.mark.parametrize("pair", PAIRS)
def test_toggles_are_those_of_icarus_verilog(osu018, pair, tmp_path):
    iverilog, vvp = tool("iverilog"), tool("vvp")
    unit, net = mapped(pair, osu018)
    times, given = power.timing(net), simulate.stimulus(unit, 5, 64, 0)
    ours = glitch.glitches(unit, net, given, times, 1.0) * 3 * 64  # toggles of all counted cycles and streams
    settled_only = simulate.run(unit, net, given) * 3 * 64
    ops = simulate.operations(net)
    delay, _, settled = glitch.in_ticks(net, ops, times, 1.0)
    values, vectors = simulate.reset(net, ops, 64), []
    for t in range(5):
        before = values.copy()
        if t:
            values[ops.state] = simulate.next_state(before, ops)
        for port, words in simulate.inputs(unit, given, t).items():
            values[net.ports[port]] = words
        simulate.settle(values, ops.out, ops.table, ops.size, ops.pins)
        if t >= simulate.WARM_UP:
            bits = [np.unpackbits(v.view(np.uint8), axis=1, bitorder="little") for v in (before, values)]
            vectors += [(bits[0][:, s], bits[1][:, s]) for s in range(64)]
    (tmp_path / "bench.v").write_text(bench(ops, net.nets, delay, vectors, settled))
    subprocess.run([iverilog, "-o", "bench", "bench.v"], cwd=tmp_path, check=True)
    subprocess.run([vvp, "bench"], cwd=tmp_path, check=True, capture_output=True)
    theirs = changes((tmp_path / "bench.vcd").read_text(), settled)
    found = np.array([theirs.get(name(n), 0) for n in range(net.nets)])
    assert found.sum() == pytest.approx(ours.sum(), rel=0.01)
    assert found.sum() > 1.05 * settled_only.sum()  # there were glitches to find


# OpenSTA: the same netlist with the same library


def structural(net: netlist.Netlist) -> str:
    """A netlist as a Verilog module of the library's cells."""
    ports = {port: [name(n) for n in nets] for port, nets in net.ports.items()}
    given = ports["clk"] + ports["a"] + ports["w"]
    lines = [f"module unit({', '.join(given + ports['acc'])});", f"  input {', '.join(given)};"]
    lines += [f"  output {', '.join(ports['acc'])};"]
    for g, kind in enumerate(net.kind):
        cell = net.cells[kind]
        pairs = [*zip(cell.inputs, net.pins[g], strict=False), *zip(cell.outputs, net.outs[g], strict=False)]
        lines.append(f"  {cell.name} g{g}({', '.join(f'.{pin}({name(n)})' for pin, n in pairs if n >= 0)});")
    return "\n".join([*lines, "endmodule\n"])


@pytest.mark.parametrize("pair", PAIRS)
def test_delay_and_leakage_are_those_of_opensta(osu018, pair, tmp_path):
    sta = tool("sta")
    _, net = mapped(pair, osu018)
    (tmp_path / "unit.v").write_text(structural(net))
    (tmp_path / "unit.tcl").write_text(f"""
        read_liberty {osu018.paths[0]}
        read_verilog unit.v
        link_design unit
        create_clock -name clk -period 100 [get_ports {name(net.ports["clk"][0])}]
        set_input_transition {osu018.slew_ps / 1000} [all_inputs]
        set_input_delay 0 -clock clk [all_inputs]
        report_checks -path_delay max -digits 5
        report_power -digits 8
        exit
        """)
    done = subprocess.run([sta, "-no_splash", "-exit", "unit.tcl"], cwd=tmp_path, capture_output=True, text=True)
    arrival_ns = float(re.search(r"([\d.]+)\s+data arrival time", done.stdout)[1])
    leakage_w = float(re.search(r"^Total(?:\s+\S+){2}\s+(\S+)", done.stdout, re.MULTILINE)[1])
    assert power.timing(net, wire=False).critical_ps == pytest.approx(1000 * arrival_ns, rel=0.03)
    assert net.leakage_nw == pytest.approx(1e9 * leakage_w, rel=1e-4)
