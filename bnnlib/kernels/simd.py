"""Vector instructions that numba's own loops do not give, as LLVM code: LANES floats at once, sums kept in registers.

Numba's loops over slices check for overlap each time, handle leftovers one by one and write every partial sum back to
memory. All indices here are flat, all arrays contiguous.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.kernels.compiling import inlined

LANES = 32  # floats that one step takes: two AVX-512, four AVX2 registers, 32 bits of a packed word
MOST_WORDS = 31  # whose differing bits an 8-bit counter holds: 31 x 8 < 256


FLOAT, BYTE, SHORT, WORD, INDEX = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _data(context, builder: ir.IRBuilder, signature, arguments: tuple, position: int) -> ir.Value:
    """Pointer to the first element of an array argument."""
    return context.make_array(signature.args[position])(context, builder, arguments[position]).data


def _vector(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
    """Pointer to LANES elements from ``index`` on."""
    return builder.bitcast(builder.gep(pointer, [index]), ir.VectorType(element, LANES).as_pointer())


def _splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    """LANES copies of a scalar."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, WORD(0)), undefined, zeros)


def _rows_adder(vectors: int) -> Callable:
    """The intrinsic that adds weighted rows of ``vectors`` times LANES floats."""

    @intrinsic
    def add(typing, target, at, source, offset, starts, factors, first, last):
        def generate(context, builder, signature, arguments):
            _, at, _, offset, _, _, first, last = arguments
            target, source, starts, factors = (_data(context, builder, signature, arguments, i) for i in (0, 2, 4, 5))
            target, source = builder.gep(target, [at]), builder.gep(source, [offset])
            shifts = [INDEX(LANES * v) for v in range(vectors)]
            pointers = [_vector(builder, target, shift, FLOAT) for shift in shifts]
            sums = [cgutils.alloca_once_value(builder, builder.load(p, align=4)) for p in pointers]
            spare = cgutils.alloca_once_value(builder, ir.Constant(ir.VectorType(FLOAT, LANES), [0.0] * LANES))

            def add_row(i: ir.Value, totals: list[ir.Value]) -> None:
                row = builder.gep(source, [builder.zext(builder.load(builder.gep(starts, [i])), INDEX)])
                factor = _splat(builder, builder.load(builder.gep(factors, [i])))
                for total, shift in zip(totals, shifts, strict=True):
                    values = builder.load(_vector(builder, row, shift, FLOAT), align=4)
                    # "contract" lets the processor multiply and add in one instruction where it has one
                    term = builder.fmul(values, factor, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)

            if vectors == 1:  # the sum of one vector would wait for itself: odd rows have their own
                before = builder.sub(last, INDEX(1))
                with cgutils.for_range_slice(builder, first, before, INDEX(2)) as (i, _):
                    add_row(i, sums)
                    add_row(builder.add(i, INDEX(1)), [spare])
                odd = builder.and_(builder.sub(last, first), INDEX(1))
                first = builder.sub(last, odd)
            with cgutils.for_range_slice(builder, first, last, INDEX(1)) as (i, _):
                add_row(i, sums)
            builder.store(builder.fadd(builder.load(sums[0]), builder.load(spare)), sums[0])
            for total, pointer in zip(sums, pointers, strict=True):
                builder.store(builder.load(total), pointer, align=4)
            return context.get_dummy_value()

        arrays = target, types.intp, source, types.intp, starts, factors
        return types.void(*arrays, types.intp, types.intp), generate

    return add


_add_32, _add_64, _add_96 = _rows_adder(1), _rows_adder(2), _rows_adder(3)  # twelve of AVX2's sixteen registers


@inlined
def add_rows(target, at, source, offset, starts, factors, first, last, width):
    """target[at + c] += sum of factors[i] * source[offset + starts[i] + c] over first <= i < last, for c < width.

    Args:
        target, source, factors: float32.
        starts: uint32.
        width: a multiple of LANES.
    """
    c = 0
    while c + 96 <= width:
        _add_96(target, at + c, source, offset + c, starts, factors, first, last)
        c += 96
    if c + 64 <= width:
        _add_64(target, at + c, source, offset + c, starts, factors, first, last)
        c += 64
    if c < width:
        _add_32(target, at + c, source, offset + c, starts, factors, first, last)


@intrinsic
def sign_bits(typing, source, start):
    """Bit i of the uint32 result is source[start + i] >= 0, for a float32 array."""

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature, arguments, 0)
        row = builder.load(_vector(builder, data, arguments[1], FLOAT), align=4)
        return builder.bitcast(builder.fcmp_ordered(">=", row, ir.Constant(row.type, [0.0] * LANES)), WORD)

    return types.uint32(source, types.intp), generate


@intrinsic
def _count_some(typing, target, at, words, first, last, others, start, step):
    """``count_mismatches`` of at most MOST_WORDS words: each byte counts for itself, the four of a lane meet last."""

    def generate(context, builder, signature, arguments):
        _, at, _, first, last, _, start, step = arguments
        target, words, others = (_data(context, builder, signature, arguments, i) for i in (0, 2, 5))
        lanes, bytes_ = ir.VectorType(WORD, LANES), ir.VectorType(BYTE, 4 * LANES)
        popcount = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(bytes_, [bytes_]), f"llvm.ctpop.v{4 * LANES}i8"
        )
        counts = cgutils.alloca_once_value(builder, ir.Constant(bytes_, [0] * 4 * LANES))
        with cgutils.for_range_slice(builder, first, last, INDEX(1)) as (i, _):
            word = _splat(builder, builder.load(builder.gep(words, [i])))
            place = builder.add(start, builder.mul(builder.sub(i, first), step))
            other = builder.load(_vector(builder, others, place, WORD), align=4)
            differing = builder.call(popcount, [builder.bitcast(builder.xor(word, other), bytes_)])
            builder.store(builder.add(builder.load(counts), differing), counts)
        four = builder.bitcast(builder.load(counts), lanes)
        pointer = _vector(builder, target, at, WORD)
        total = builder.load(pointer, align=4)
        for shift in (0, 8, 16, 24):
            byte = builder.lshr(four, ir.Constant(lanes, [shift] * LANES))
            total = builder.add(total, builder.and_(byte, ir.Constant(lanes, [255] * LANES)))
        builder.store(total, pointer, align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(target, index, words, index, index, others, index, index), generate


@inlined
def count_mismatches(target, at, words, first, last, others, start, step):
    """target[at + c] += popcount(words[i] ^ others[start + (i - first) * step + c]) over first <= i < last, c < LANES.

    Args:
        target: int32.
        words, others: uint32.
    """
    for i in range(first, last, MOST_WORDS):
        stop = min(i + MOST_WORDS, last)
        _count_some(target, at, words, i, stop, others, start + (i - first) * step, step)
