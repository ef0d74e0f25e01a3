"""How deficits come from elements, as LLVM code: a form for each layout of ``bnnlib/kernels/layouts.py``.

What the elements are is told by their type: uint32 are words of bits, uint16 places in a table, uint8 and int16
numbers; arrays with one axis more hold two planes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from bnnlib.kernels.layouts import BLOCK, triples
from bnnlib.kernels.processor import counts_bits_in_vectors, widest_lookup

BYTE, INDEX = ir.IntType(8), ir.IntType(64)


def widened(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    """The same pointer, to a vector."""
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, lanes).as_pointer())


def load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    return builder.load(widened(builder, pointer, lanes), align=1)


def constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    zeros = constant(ir.VectorType(ir.IntType(32), lanes), 0)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, INDEX(0)), undefined, zeros)


def zext(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    return value if value.type == kind else builder.zext(value, kind)


def call(builder: ir.IRBuilder, name: str, kind: ir.VectorType, *values: ir.Value) -> ir.Value:
    function = ir.FunctionType(kind, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)


def _add_bytes(builder: ir.IRBuilder, sums: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
    """VPDPBUSD: to each of 16 sums, four products of bytes. Operands are <16 x i32>."""
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", sums.type, sums, unsigned, signed)


class _Form:
    """How deficits come from elements. Counters are vectors of ``lanes`` outputs, in stack places.

    Attributes:
        at_once: pixels that share the load of the weights.
        stride: items of the array from an element of the inputs to the next of a row.
        step, weight_step: items of the arrays in an element.
        lanes, vectors: outputs in a vector, vectors that are summed at once.
        sum: type of a counter.
        turn: elements a turn of the innermost loop: four were 10 to 15 % faster than one (AVX2).
        pixels, counters: that go together with one element of the inputs.
    """

    at_once, stride, step, weight_step, lanes, vectors, turn, pixels, counters = 4, 1, 1, BLOCK, 32, 1, 4, 1, 1

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], acts: list, weights: list) -> None:
        """Add the deficits of a turn of elements, of as many as are left of one at the end of a row."""
        for act, weight in zip(acts, weights, strict=True):
            self.count(builder, counters[0], self.deficit(builder, act, weight))

    def count(self, builder: ir.IRBuilder, counter: ir.Value, deficit: ir.Value) -> None:
        builder.store(builder.add(builder.load(counter), deficit), counter)

    def totals(self, builder: ir.IRBuilder, counters: list[ir.Value]) -> list[ir.Value]:
        """The deficits of each pixel."""
        return [builder.load(counters[0])]


class _Words(_Form):
    """XOR and popcount, for each plane of the inputs; of weights with two planes only where they are not zero."""

    def __init__(self, target, acts, tables, weights) -> None:
        self.act_planes, self.weight_planes = acts.ndim, weights.ndim - 3
        self.stride = self.step = self.act_planes
        self.weight_step = self.weight_planes * BLOCK
        if counts_bits_in_vectors():  # 12 of AVX-512's 32 registers for counts, which leaves enough for ternary weights
            self.at_once, self.turn, self.lanes, self.vectors = 3, 1, 16, 4
        else:
            self.lanes, self.turn = 16, 4
        self.sum = ir.VectorType(ir.IntType(32), self.lanes)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> list[ir.Value]:
        planes = range(self.act_planes)
        return [splat(builder, builder.load(builder.gep(pointer, [INDEX(i)])), self.lanes) for i in planes]

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> list[ir.Value]:
        return [load(builder, builder.gep(pointer, [INDEX(i * BLOCK)]), self.lanes) for i in range(self.weight_planes)]

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], acts: list, weights: list) -> None:
        for act, weight in zip(acts, weights, strict=True):
            for plane in act:
                differ = builder.xor(plane, weight[0])
                found = builder.and_(differ, weight[1]) if len(weight) == 2 else differ
                self.count(builder, counters[0], self.popcount(builder, found))

    def popcount(self, builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
        return call(builder, f"llvm.ctpop.v{self.lanes}i32", self.sum, bits)


class _Triples(_Words):
    """Words of binary weights, three at a time, the third being the XOR of the three: 8 instructions instead of 9.

    With x, y, z what differs in each, a full adder has the bits s = x ^ y ^ z and c, their majority, and counts
    popcount(s) + 2 popcount(c). Of XORs, s is one as well: that of the XOR of three inputs and the XOR of three
    weights. So z is never needed: where x = y, c is x, and else it is what s is not. VPDPBUSD doubles and adds in one.
    """

    def __init__(self, target, acts, tables, weights) -> None:
        super().__init__(target, acts, tables, weights)
        self.turn = 3

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], acts: list, weights: list) -> None:
        if len(acts) < self.turn:
            super().add(builder, counters, acts, weights)
            return
        for a, b, c in zip(*acts, strict=True):
            x, y = builder.xor(a, weights[0][0]), builder.xor(b, weights[1][0])
            s = builder.xor(self._logic(builder, a, b, c, 0x96), weights[2][0])
            carry = self.popcount(builder, self._logic(builder, x, y, s, 0xD4))
            self.count(builder, counters[0], self.popcount(builder, s))
            total = _add_bytes(builder, builder.load(counters[0]), carry, constant(self.sum, 2))
            builder.store(total, counters[0])

    def _logic(self, builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value, truth: int) -> ir.Value:
        """VPTERNLOGD: bit 4 a + 2 b + c of ``truth``, for each bit."""
        return call(builder, "llvm.x86.avx512.pternlog.d.512", self.sum, a, b, c, ir.IntType(32)(truth))


class _Tables(_Form):
    """A row of a table for each element of the inputs, a column of it for each of the weights (AVX2, AVX-512)."""

    def __init__(self, target, acts, tables, weights) -> None:
        self.lanes = widest_lookup()
        self.vectors = BLOCK // self.lanes
        self.sum = ir.VectorType(BYTE, self.lanes)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> ir.Value:
        row = load(builder, builder.gep(tables, [builder.zext(builder.load(pointer), INDEX)]), 16)
        places = ir.VectorType(ir.IntType(32), self.lanes)
        return builder.shuffle_vector(row, row, ir.Constant(places, [*range(16)] * (self.lanes // 16)))

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
        return load(builder, pointer, self.lanes)

    def deficit(self, builder: ir.IRBuilder, act: ir.Value, weight: ir.Value) -> ir.Value:
        name = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[self.lanes]
        return call(builder, name, self.sum, act, weight)


class _Pairs(_Tables):
    """A row for the elements of two neighbouring pixels: the deficit of the first, and 16 times that of the second.

    A deficit is at most 4, so that three of these sums go into a byte without a carry from the lower half. One counter
    adds the bytes, another the bytes shifted down by a half; what overflows is lost in both. There is no shift of
    bytes, but of pairs of them: the upper byte of a pair is right, and the lower one gets 16 times the first pixel's
    deficit of the upper one besides, which ``totals`` takes off again, once instead of every time.
    """

    turn, pixels, counters = 3, 2, 2

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], acts: list, weights: list) -> None:
        both, *others = (self.deficit(builder, act, weight) for act, weight in zip(acts, weights, strict=True))
        for deficit in others:
            both = builder.add(both, deficit)
        pairs = ir.VectorType(ir.IntType(16), self.lanes // 2)
        shifted = builder.bitcast(builder.lshr(builder.bitcast(both, pairs), constant(pairs, 4)), self.sum)
        for counter, value in zip(counters, (both, shifted), strict=True):
            self.count(builder, counter, value)

    def totals(self, builder: ir.IRBuilder, counters: list[ir.Value]) -> list[ir.Value]:
        both, shifted = (builder.load(counter) for counter in counters)
        pairs, sixteen = ir.VectorType(ir.IntType(16), self.lanes // 2), constant(self.sum, 16)
        first = builder.sub(both, builder.mul(shifted, sixteen))  # right in the upper bytes
        upper = builder.lshr(builder.bitcast(first, pairs), constant(pairs, 8))  # and moved into the lower ones
        second = builder.sub(shifted, builder.mul(builder.bitcast(upper, self.sum), sixteen))
        return [builder.sub(both, builder.mul(second, sixteen)), second]


class _Bytes(_Form):
    """VPDPBUSD: four bytes of the inputs and of the weights in a lane."""

    stride, lanes, vectors, turn = 4, 16, 4, 1

    def __init__(self, target, acts, tables, weights) -> None:
        self.sum = ir.VectorType(ir.IntType(32), self.lanes)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> ir.Value:
        four = builder.bitcast(pointer, ir.IntType(32).as_pointer())
        return splat(builder, builder.load(four, align=1), self.lanes)

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
        return load(builder, pointer, self.lanes)

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], acts: list, weights: list) -> None:
        for act, weight in zip(acts, weights, strict=True):
            builder.store(_add_bytes(builder, builder.load(counters[0]), act, weight), counters[0])


class _Products(_Form):
    """Multiplication, in the type of the sums."""

    turn = 3  # an RGB pixel

    def __init__(self, target, acts, tables, weights) -> None:
        self.sum = ir.VectorType(ir.IntType(target.dtype.bitwidth), self.lanes)

    def _widened(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return value if value.type == self.sum else builder.sext(value, self.sum)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> ir.Value:
        return self._widened(builder, splat(builder, builder.load(pointer), self.lanes))

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
        return self._widened(builder, load(builder, pointer, self.lanes))

    def deficit(self, builder: ir.IRBuilder, act: ir.Value, weight: ir.Value) -> ir.Value:
        return builder.mul(act, weight)


def form_of(target, acts, tables, weights) -> _Form:
    """The form that the types of the arrays tell."""
    if acts.dtype == types.uint32:
        return (_Triples if weights.ndim == 4 and triples() else _Words)(target, acts, tables, weights)
    if acts.dtype == types.uint8:
        return _Bytes(target, acts, tables, weights)
    if acts.dtype == types.int16:
        return _Products(target, acts, tables, weights)
    return (_Pairs if tables.ndim == 3 else _Tables)(target, acts, tables, weights)
