"""Sums of four signed bytes with four signs, looked up, as LLVM code (AVX2, AVX-512).

Four bytes g have 16 sums ±g0 ±g1 ±g2 ±g3, which fill a table of one vector; four signs are the place in it. VPSHUFB
looks up 32 or 64 places at once, 128 or 256 products (T-MAC, arXiv 2407.00088, does so for weights of few bits). A sum
is stored as an unsigned byte, OFFSET higher than it is. All arrays are contiguous; places count items from the first.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.kernels.compiling import inlined
from bnnlib.kernels.forms import call, constant, load, splat
from bnnlib.kernels.processor import widest_lookup
from bnnlib.kernels.simd import BYTE, INDEX, SHORT, WORD, _data

ROWS = 2  # of a tile
DIGIT = 31  # the largest byte whose fourfold, with OFFSET, is a byte
OFFSET = 4 * DIGIT
LOOKUPS = 257  # whose bytes 16 bits hold: 257 * 255 < 2^16
TABLE = ir.VectorType(BYTE, 16)
WIDE = 3 * widest_lookup()  # columns of a tile: twelve of sixteen registers are sums
MIDDLE, NARROW = 96, 32  # for rows that wide tiles do not fill


def _places(places: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(WORD, len(places)), places)


def _look_up(builder: ir.IRBuilder, table: ir.Value, places: ir.Value) -> ir.Value:
    name = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[places.type.count]
    return call(builder, name, places.type, table, places)


@intrinsic
def store_table(typing, tables, at, a, b, c, d):
    """tables[at + i] = OFFSET + the sum of a, b, c, d, each negative where its bit of i (a's lowest) is not set."""

    def generate(context, builder, signature, arguments):
        tables = _data(context, builder, signature, arguments, 0)
        total = constant(TABLE, OFFSET)
        for bit, value in enumerate(arguments[2:]):
            plus = splat(builder, value, 16)
            minus = builder.sub(constant(TABLE, 0), plus)
            signs = _places([i + 16 * (i >> bit & 1) for i in range(16)])
            total = builder.add(total, builder.shuffle_vector(minus, plus, signs))
        builder.store(total, builder.bitcast(builder.gep(tables, [arguments[1]]), TABLE.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(tables, types.intp, *[types.int8] * 4), generate


def _adder(columns: int, width: int) -> Callable:
    """The intrinsic that adds lookups for ROWS rows and so many columns, ``width`` of them at once."""
    vectors = columns // width
    shorts, words = ir.VectorType(SHORT, width // 2), ir.VectorType(WORD, width)

    @intrinsic
    def add(typing, target, targets, shifts, tables, starts, first, row_jump, codes, at, code_jump, segments, steps):
        def generate(context, builder, signature, arguments):
            target, targets, shifts, tables, starts, codes = (
                _data(context, builder, signature, arguments, i) for i in (0, 1, 2, 3, 4, 7)
            )
            first, row_jump, at, code_jump, segments, steps = (arguments[i] for i in (5, 6, 8, 9, 10, 11))
            codes = builder.gep(codes, [at])
            members = [builder.add(first, INDEX(m)) for m in range(ROWS)]
            eight = constant(shorts, 8)
            none = constant(shorts, 0)
            # pairs of bytes as they are, and the upper ones alone: what overflows is lost in both
            pairs, uppers = (
                [[cgutils.alloca_once_value(builder, none) for _ in range(vectors)] for _ in members] for _ in (0, 1)
            )
            with cgutils.for_range_slice(builder, INDEX(0), segments, INDEX(1)) as (s, _):
                moved = builder.mul(s, row_jump)
                rows = [
                    builder.gep(tables, [builder.add(builder.load(builder.gep(starts, [m])), moved)]) for m in members
                ]
                base = builder.gep(codes, [builder.mul(s, code_jump)])
                with cgutils.for_range_slice(builder, INDEX(0), steps, INDEX(1)) as (k, _):
                    column = builder.gep(base, [builder.mul(k, INDEX(columns))])
                    places = [load(builder, builder.gep(column, [INDEX(width * v)]), width) for v in range(vectors)]
                    for m, row in enumerate(rows):
                        table = load(builder, builder.gep(row, [builder.mul(k, INDEX(16))]), 16)
                        table = builder.shuffle_vector(table, table, _places([*range(16)] * (width // 16)))
                        for v in range(vectors):
                            found = builder.bitcast(_look_up(builder, table, places[v]), shorts)
                            builder.store(builder.add(builder.load(pairs[m][v]), found), pairs[m][v])
                            upper = builder.lshr(found, eight)
                            builder.store(builder.add(builder.load(uppers[m][v]), upper), uppers[m][v])
            offset = builder.trunc(builder.mul(builder.mul(segments, steps), INDEX(OFFSET)), WORD)
            offset = splat(builder, offset, width)
            for m, member in enumerate(members):
                shift = splat(builder, builder.load(builder.gep(shifts, [member])), width)
                to = builder.gep(target, [builder.load(builder.gep(targets, [member]))])
                for v in range(vectors):
                    upper = builder.load(uppers[m][v])
                    lower = builder.sub(builder.load(pairs[m][v]), builder.shl(upper, eight))
                    in_turn = _places([i + width // 2 * j for i in range(width // 2) for j in (0, 1)])
                    both = builder.shuffle_vector(lower, upper, in_turn)
                    total = builder.shl(builder.sub(builder.zext(both, words), offset), shift)
                    pointer = builder.bitcast(builder.gep(to, [INDEX(width * v)]), words.as_pointer())
                    builder.store(builder.add(builder.load(pointer, align=4), total), pointer, align=4)
            return context.get_dummy_value()

        i = types.intp
        return types.void(target, targets, shifts, tables, starts, i, i, codes, i, i, i, i), generate

    return add


_add_wide, _add_middle, _add_narrow = _adder(WIDE, WIDE // 3), _adder(MIDDLE, 32), _adder(NARROW, 32)


def tile_columns(length: int) -> int:
    """Columns of a tile for rows of so many, a multiple of 32."""
    return next(columns for columns in (WIDE, MIDDLE, NARROW) if length % columns == 0)


@inlined
def add_lookups(
    target, targets, shifts, tables, starts, first, row_jump, codes, at, code_jump, segments, steps, columns
):  # fmt: skip
    """target[targets[m] + c] += 2^shifts[m] times the sum of what is looked up, c < columns.

    That is tables[starts[m] + s row_jump + 16 k + codes[at + s code_jump + k columns + c]] - OFFSET for segments s and
    steps k, LOOKUPS of them at most; ROWS rows m from ``first`` on.

    Args:
        target, shifts: int32.
        targets, starts: intp.
        tables, codes: uint8.
        columns: of ``tile_columns``.
    """
    if columns == WIDE:
        _add_wide(target, targets, shifts, tables, starts, first, row_jump, codes, at, code_jump, segments, steps)
    elif columns == MIDDLE:
        _add_middle(target, targets, shifts, tables, starts, first, row_jump, codes, at, code_jump, segments, steps)
    else:
        _add_narrow(target, targets, shifts, tables, starts, first, row_jump, codes, at, code_jump, segments, steps)
