"""A dot-product unit as structural Verilog: N products per cycle, summed by a compressor tree into an accumulator.

- Products. Two binary operands: XNOR. A ternary one: XNOR of the signs, gated by non-zero, as two bits that count +1
  and not -1. Fixed by binary or ternary: conditional negation, one's complement and a carry. Fixed by fixed: the array
  of AND gates of Baugh and Wooley (IEEE Trans. Computers C-22, 1973, doi 10.1109/T-C.1973.223648), no Booth coding.
- Tree. The bits of all products together: full adders take any three bits of one weight until two are left (Wallace,
  IEEE Trans. El. Computers EC-13, 1964, doi 10.1109/PGEC.1964.263830), a ripple carry adds these.
- Accumulator. A ripple-carry adder and a register, GUARD bits wider than one sum.

The products' constant parts (one per pair) are left out of the tree: they are the accumulator's start value.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from bnnlib.errors import UserError
from bnnlib.hardware.coding import Operand

GUARD = 8


@dataclass(frozen=True)
class Unit:
    """A dot-product unit.

    Args:
        act, weight: the operands.
        length: products per cycle, N.
        registers: whether both operands are registered at the inputs.
    """

    act: Operand
    weight: Operand
    length: int
    registers: bool = False

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UserError(f"length {self.length} is no vector; use at least 2")

    @property
    def product(self) -> "Product":
        return product(self.act, self.weight)

    @property
    def sum_bits(self) -> int:
        """Bits of the sum of one cycle."""
        return (self.length * sum(1 << e for e in self.product.exponents)).bit_length()

    @property
    def bits(self) -> int:
        """Bits of the accumulator."""
        return self.sum_bits + GUARD


@dataclass(frozen=True)
class Product:
    """One product as bits: value = scale * sum(2^exponent * bit) - offset.

    Args:
        logic: right-hand sides, Verilog over ``a`` and ``w``, one a bit.
        exponents: of each bit.
        scale, offset: integers.
    """

    logic: tuple[str, ...]
    exponents: tuple[int, ...]
    scale: int
    offset: int


def product(act: Operand, weight: Operand) -> Product:
    """The product of two operands."""
    if act.fixed and weight.fixed:
        return _baugh_wooley(act.bits, weight.bits)
    if act.fixed or weight.fixed:
        x, k, few, other = ("a", act.bits, weight, "w") if act.fixed else ("w", weight.bits, act, "a")
        gate = f" & {other}[0]" if few.name == "ternary" else ""
        negative = f"{other}[1]" if few.name == "ternary" else f"~{other}[0]"
        low = [f"({x}[{i}] ^ {negative}){gate}" for i in range(k - 1)]
        sign = f"~(({x}[{k - 1}] ^ {negative}){gate})"
        return Product((*low, sign, negative + gate), (*range(k), 0), 1, 1 << (k - 1))
    if act.name == weight.name == "binary":
        return Product(("~(a[0] ^ w[0])",), (0,), 2, 1)
    signs = [f"{v}[1]" if op.name == "ternary" else f"~{v}[0]" for v, op in (("a", act), ("w", weight))]
    some = " & ".join(f"{v}[0]" for v, op in (("a", act), ("w", weight)) if op.name == "ternary")
    negative = f"({signs[0]} ^ {signs[1]})"
    return Product((f"{some} & ~{negative}", f"~({some} & {negative})"), (0, 0), 1, 1)


def _baugh_wooley(a: int, w: int) -> Product:
    logic, exponents = [], []
    for i in range(a):
        for j in range(w):
            term = f"a[{i}] & w[{j}]"
            logic.append(f"~({term})" if (i == a - 1) != (j == w - 1) else term)
            exponents.append(i + j)
    offset = (1 << (a - 1)) * ((1 << (w - 1)) - 1) + (1 << (w - 1)) * ((1 << (a - 1)) - 1)
    return Product(tuple(logic), tuple(exponents), 1, offset)


class _Writer:
    """Lines of a module, with a new wire for every result."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self.part = ""  # what the instances belong to, the first letter of their names

    def add(self, module: str, inputs: tuple[str, ...], outputs: int) -> tuple[str, ...]:
        wires = tuple(f"n{self.count + k}" for k in range(outputs))
        self.count += outputs
        self.lines.append(f"  wire {', '.join(wires)};")
        self.lines.append(f"  {module} {self.part[0]}_{wires[0]}({', '.join((*inputs, *wires))});")
        return wires

    def sum(self, columns: dict[int, list[str]]) -> dict[int, str]:
        """Compress columns of bits, by exponent, to one bit each."""
        while any(len(bits) > 2 for bits in columns.values()):
            after = defaultdict(list)
            for e, bits in sorted(columns.items()):
                full = len(bits) - len(bits) % 3
                for i in range(0, full, 3):
                    s, c = self.add("fa", tuple(bits[i : i + 3]), 2)
                    after[e].append(s)
                    after[e + 1].append(c)
                after[e] += bits[full:]
            columns = after
        return dict(self.ripple(columns))

    def ripple(self, columns: dict[int, list[str]], stop: int | None = None) -> Iterator[tuple[int, str]]:
        """Add columns of at most two bits; of a carry out of bit ``stop`` nothing is kept."""
        carry, e = [], min(columns)
        while e <= max(columns) or carry:
            bits = [*columns.get(e, []), *carry]
            carry = []
            if len(bits) > 1:
                s, c = self.add("fa" if len(bits) == 3 else "ha", tuple(bits), 2)
                bits, carry = [s], [c] if stop is None or e + 1 < stop else []
            if bits:
                yield e, bits[0]
            e += 1


def verilog(unit: Unit) -> str:
    """The unit, module ``unit``, and its ``product``; ``fa``, ``ha`` and ``dff`` are the library's.

    Ports: ``clk``; ``a`` and ``w``, the codes of the vectors one after the other; ``acc``, the accumulator.
    """
    n, a, w, p = unit.length, unit.act.bits, unit.weight.bits, unit.product
    out = _Writer()

    def operand(port: str, bits: int) -> list[str]:
        wires = [f"{port}[{i}]" for i in range(n * bits)]
        return [out.add("dff", ("clk", wire), 1)[0] for wire in wires] if unit.registers else wires

    out.part = "registers"
    acts, weights = operand("a", a), operand("w", w)
    out.part = "products"
    columns = defaultdict(list)
    for i in range(n):
        inputs = [*acts[i * a : i * a + a][::-1], "|", *weights[i * w : i * w + w][::-1]]
        at = inputs.index("|")
        joined = "{" + ", ".join(inputs[:at]) + "}", "{" + ", ".join(inputs[at + 1 :]) + "}"
        for e, bit in zip(p.exponents, out.add("product", joined, len(p.logic)), strict=True):
            columns[e].append(bit)
    out.part = "tree"
    total = out.sum(columns)
    out.part = "accumulator"
    both = {e: [f"acc[{e}]", *([total[e]] if e in total else [])] for e in range(unit.bits)}
    for e, bit in out.ripple(both, stop=unit.bits):
        out.lines.append(f"  dff a_r{e}(clk, {bit}, acc[{e}]);")
    outputs = ", ".join(f"p{k}" for k in range(len(p.logic)))
    rules = "\n".join(f"  assign p{k} = {rule};" for k, rule in enumerate(p.logic))
    body = "\n".join(out.lines)
    return f"""module product(a, w, {outputs});
  input [{a - 1}:0] a;
  input [{w - 1}:0] w;
  output {outputs};
{rules}
endmodule

module unit(clk, a, w, acc);
  input clk;
  input [{n * a - 1}:0] a;
  input [{n * w - 1}:0] w;
  output [{unit.bits - 1}:0] acc;
{body}
endmodule
"""
