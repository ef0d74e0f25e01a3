"""Deficits of many dot products at once, as LLVM code: some pixels times some outputs, kept in registers.

What the elements are is told by their type: uint32 are words of bits, uint16 places in a table, int16 numbers
(``bnnlib/packed/codes.py``); arrays with one axis more hold two planes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.packed.codes import BLOCK
from bnnlib.packed.processor import counts_bits_in_vectors

BYTE, INDEX = ir.IntType(8), ir.IntType(64)
PIXELS = 4  # at once: they share the load of the weights


def _wide(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    """The same pointer, to a vector."""
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, lanes).as_pointer())


def _load(builder: ir.IRBuilder, pointer: ir.Value, lanes: int) -> ir.Value:
    return builder.load(_wide(builder, pointer, lanes), align=1)


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    zeros = _constant(ir.VectorType(ir.IntType(32), lanes), 0)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, INDEX(0)), undefined, zeros)


def _call(builder: ir.IRBuilder, name: str, kind: ir.VectorType, *values: ir.Value) -> ir.Value:
    function = ir.FunctionType(kind, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)


class _Form:
    """How deficits come from elements. Counters are vectors of ``lanes`` outputs, in stack places.

    Attributes:
        step, weight_step: items of the array in an element.
        lanes, vectors: outputs in a vector, vectors that are summed at once.
        sum: type of a counter.
        turn: elements a turn of the innermost loop: four were 10 to 15 % faster than one (AVX2).
        pixels, counters: that go together with one element of the inputs.
    """

    step, weight_step, lanes, vectors, turn, pixels, counters = 1, BLOCK, 32, 1, 4, 1, 1

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], deficits: list[ir.Value]) -> None:
        for deficit in deficits:
            builder.store(builder.add(builder.load(counters[0]), deficit), counters[0])

    def totals(self, builder: ir.IRBuilder, counters: list[ir.Value]) -> list[ir.Value]:
        """The deficits of each pixel."""
        return [builder.load(counters[0])]


class _Words(_Form):
    """XOR and popcount; operands of two planes have P, and what is not zero."""

    def __init__(self, target, acts, tables, weights) -> None:
        self.act_planes, self.weight_planes = acts.ndim, weights.ndim - 3
        self.step, self.weight_step = self.act_planes, self.weight_planes * BLOCK
        # all outputs at once take 16 of AVX-512's 32 registers for counts; more elements a turn would not leave enough
        self.lanes, self.turn = (BLOCK, 1) if counts_bits_in_vectors() else (16, 4)
        self.sum = ir.VectorType(ir.IntType(32), self.lanes)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> list[ir.Value]:
        planes = range(self.act_planes)
        return [_splat(builder, builder.load(builder.gep(pointer, [INDEX(i)])), self.lanes) for i in planes]

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> list[ir.Value]:
        return [_load(builder, builder.gep(pointer, [INDEX(i * BLOCK)]), self.lanes) for i in range(self.weight_planes)]

    def deficit(self, builder: ir.IRBuilder, act: list[ir.Value], weight: list[ir.Value]) -> ir.Value:
        differ, nonzero = builder.xor(act[0], weight[0]), act[1:] + weight[1:]
        if not nonzero:
            return self._count(builder, differ)
        both = nonzero[0] if len(nonzero) == 1 else builder.and_(*nonzero)
        negative = self._count(builder, builder.and_(both, differ))
        return builder.add(builder.add(negative, negative), self._count(builder, builder.not_(both)))

    def _count(self, builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
        return _call(builder, f"llvm.ctpop.v{self.lanes}i32", self.sum, bits)


class _Tables(_Form):
    """A row of a table for each element of the inputs, a column of it for each of the weights (AVX2)."""

    vectors = 2

    def __init__(self, target, acts, tables, weights) -> None:
        self.sum = ir.VectorType(BYTE, self.lanes)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> ir.Value:
        row = _load(builder, builder.gep(tables, [builder.zext(builder.load(pointer), INDEX)]), 16)
        return builder.shuffle_vector(row, row, ir.Constant(ir.VectorType(ir.IntType(32), 32), [*range(16)] * 2))

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
        return _load(builder, pointer, self.lanes)

    def deficit(self, builder: ir.IRBuilder, act: ir.Value, weight: ir.Value) -> ir.Value:
        return _call(builder, "llvm.x86.avx2.pshuf.b", self.sum, act, weight)


class _Pairs(_Tables):
    """A row for the elements of two neighbouring pixels: the deficit of the first, and 16 times that of the second.

    A deficit is at most 4, so that three of these sums go into a byte without a carry from the lower half. One counter
    adds the bytes, another the bytes shifted down by a half; what overflows is lost in both. There is no shift of
    bytes, but of pairs of them: the upper byte of a pair is right, and the lower one gets 16 times the first pixel's
    deficit of the upper one besides, which ``totals`` takes off again, once instead of every time.
    """

    turn, pixels, counters = 3, 2, 2

    def add(self, builder: ir.IRBuilder, counters: list[ir.Value], deficits: list[ir.Value]) -> None:
        both = deficits[0]
        for deficit in deficits[1:]:
            both = builder.add(both, deficit)
        pairs = ir.VectorType(ir.IntType(16), self.lanes // 2)
        shifted = builder.bitcast(builder.lshr(builder.bitcast(both, pairs), _constant(pairs, 4)), self.sum)
        for counter, value in zip(counters, (both, shifted), strict=True):
            builder.store(builder.add(builder.load(counter), value), counter)

    def totals(self, builder: ir.IRBuilder, counters: list[ir.Value]) -> list[ir.Value]:
        both, shifted = (builder.load(counter) for counter in counters)
        pairs, sixteen = ir.VectorType(ir.IntType(16), self.lanes // 2), _constant(self.sum, 16)
        first = builder.sub(both, builder.mul(shifted, sixteen))  # right in the upper bytes
        upper = builder.lshr(builder.bitcast(first, pairs), _constant(pairs, 8))  # and moved into the lower ones
        second = builder.sub(shifted, builder.mul(builder.bitcast(upper, self.sum), sixteen))
        return [builder.sub(both, builder.mul(second, sixteen)), second]


class _Products(_Form):
    """Multiplication, in the type of the sums."""

    turn = 3  # an RGB pixel

    def __init__(self, target, acts, tables, weights) -> None:
        self.sum = ir.VectorType(ir.IntType(target.dtype.bitwidth), self.lanes)

    def _widened(self, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return value if value.type == self.sum else builder.sext(value, self.sum)

    def act(self, builder: ir.IRBuilder, pointer: ir.Value, tables: ir.Value) -> ir.Value:
        return self._widened(builder, _splat(builder, builder.load(pointer), self.lanes))

    def weight(self, builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
        return self._widened(builder, _load(builder, pointer, self.lanes))

    def deficit(self, builder: ir.IRBuilder, act: ir.Value, weight: ir.Value) -> ir.Value:
        return builder.mul(act, weight)


def _form(target, acts, tables, weights) -> _Form:
    """The form that the types of the arrays tell."""
    if acts.dtype == types.uint32:
        return _Words(target, acts, tables, weights)
    if acts.dtype == types.int16:
        return _Products(target, acts, tables, weights)
    return (_Pairs if tables.ndim == 3 else _Tables)(target, acts, tables, weights)


def _adder(pixels: int):
    """The intrinsic that adds deficits to as many rows of sums."""

    @intrinsic
    def add(typing, target, at, acts, starts, first, shift, row_step, tables, weights, start, rows, run):
        """target[at + p * BLOCK + o] += deficits of ``rows`` times ``run`` elements, for each pixel p and output o.

        Args:
            target: int16 or int32, flat.
            acts: elements of the inputs; pixel p begins at starts[first + p] + shift, its rows ``row_step`` apart.
            tables: of ``_Tables``.
            weights: elements of the weights of BLOCK outputs, from ``start`` on, all rows one after another.
        """

        def generate(context, builder, signature, arguments):
            _, at_, _, _, first, shift, row_step, _, _, start, rows, run = arguments
            target, acts, starts, tables, weights = (
                context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2, 3, 7, 8)
            )
            form = _form(*(signature.args[i] for i in (0, 2, 7, 8)))
            sources = range(0, pixels, form.pixels)
            begins = [
                builder.add(builder.load(builder.gep(starts, [builder.add(first, INDEX(p))])), shift) for p in sources
            ]
            weights = builder.gep(weights, [builder.mul(start, INDEX(form.weight_step))])
            zero = _constant(form.sum, 0)
            for lane in range(0, BLOCK, form.lanes * form.vectors):
                moves = [INDEX(lane + v * form.lanes) for v in range(form.vectors)]
                counters = {
                    (p, v): [cgutils.alloca_once(builder, form.sum) for _ in range(form.counters)]
                    for p in sources
                    for v in range(form.vectors)
                }
                for places in counters.values():
                    for place in places:
                        builder.store(zero, place)
                with cgutils.for_range_slice(builder, INDEX(0), rows, INDEX(1)) as (r, _):
                    down = builder.mul(r, row_step)
                    images = [
                        builder.gep(acts, [builder.mul(builder.add(begin, down), INDEX(form.step))]) for begin in begins
                    ]
                    kernel = builder.gep(weights, [builder.mul(builder.mul(r, run), INDEX(form.weight_step))])

                    def add_elements(i, count, images=images, kernel=kernel, moves=moves, counters=counters) -> None:
                        deficits = {key: [] for key in counters}
                        for j in range(count):
                            at = builder.add(i, INDEX(j))
                            offset = builder.mul(at, INDEX(form.step))
                            values = [form.act(builder, builder.gep(image, [offset]), tables) for image in images]
                            column = builder.gep(kernel, [builder.mul(at, INDEX(form.weight_step))])
                            for v, move in enumerate(moves):
                                weight = form.weight(builder, builder.gep(column, [move]))
                                for p, value in zip(sources, values, strict=True):
                                    deficits[p, v].append(form.deficit(builder, value, weight))
                        for key, found in deficits.items():
                            form.add(builder, counters[key], found)

                    whole = builder.sub(run, builder.urem(run, INDEX(form.turn)))
                    with cgutils.for_range_slice(builder, INDEX(0), whole, INDEX(form.turn)) as (i, _):
                        add_elements(i, form.turn)
                    with cgutils.for_range_slice(builder, whole, run, INDEX(1)) as (i, _):
                        add_elements(i, 1)
                for (p, v), places in counters.items():
                    for q, total in enumerate(form.totals(builder, places)[: pixels - p]):
                        to = builder.gep(target, [builder.add(builder.add(at_, INDEX((p + q) * BLOCK)), moves[v])])
                        wide = ir.VectorType(to.type.pointee, form.lanes)
                        total = total if total.type == wide else builder.zext(total, wide)
                        to = _wide(builder, to, form.lanes)
                        builder.store(builder.add(builder.load(to, align=1), total), to, align=1)
            return context.get_dummy_value()

        i = types.intp
        return types.void(target, i, acts, starts, i, i, i, tables, weights, i, i, i), generate

    return add


add_deficits, add_deficits_of_one = _adder(PIXELS), _adder(1)


@intrinsic
def at_most(typing, sums, at, limits, start):
    """Bit o of the uint64 result is sums[at + o] <= limits[start + o], for the BLOCK outputs from ``at`` on."""

    def generate(context, builder, signature, arguments):
        sums, limits = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        a, b = (_load(builder, builder.gep(data, [arguments[i]]), BLOCK) for data, i in ((sums, 1), (limits, 3)))
        return builder.bitcast(builder.icmp_signed("<=", a, b), INDEX)

    return types.uint64(sums, types.intp, limits, types.intp), generate


@intrinsic
def store_pairs(typing, acts, at, own, other):
    """Places in a table of pairs, acts[at + e] = 256 times four bits of ``own`` plus 16 times those of ``other``.

    Args:
        acts: uint16; 16 items are written.
        own, other: uint64, 16 codes of four bits each.
    """

    def generate(context, builder, signature, arguments):
        acts = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        words, lanes = ir.VectorType(ir.IntType(32), 2), ir.VectorType(ir.IntType(32), 16)
        both = _constant(lanes, 0)
        for code, shift in zip(arguments[2:], (8, 4), strict=True):
            word = builder.bitcast(code, words)
            word = builder.shuffle_vector(word, word, ir.Constant(lanes, [0] * 8 + [1] * 8))
            four = builder.and_(builder.lshr(word, ir.Constant(lanes, [*range(0, 32, 4)] * 2)), _constant(lanes, 15))
            both = builder.or_(both, builder.shl(four, _constant(lanes, shift)))
        to = _wide(builder, builder.gep(acts, [arguments[1]]), 16)
        builder.store(builder.trunc(both, to.type.pointee), to, align=1)
        return context.get_dummy_value()

    return types.void(acts, types.intp, types.uint64, types.uint64), generate
