"""Deficits of many dot products at once, as LLVM code: some pixels times some outputs, kept in registers."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnnlib.kernels.forms import INDEX, constant, form_of, load, widened, zext
from bnnlib.kernels.layouts import BLOCK


def _deficits(context, builder, signature, arguments, result, alone) -> dict[int, list[ir.Value]]:
    """The deficits of the dot products of ``at_once`` pixels, or of one, as vectors that make up BLOCK for each pixel.

    Args:
        arguments: the last of them are ``acts, starts, first, shift, row_step, tables, weights, start, rows, run``:
            elements of the inputs, of which pixel p begins at starts[first + p] + shift, its rows ``row_step`` apart;
            tables of ``_Tables``; elements of the weights of BLOCK outputs, from ``start`` on, all rows one after
            another, ``rows`` times ``run``.
        result: array of the sums or limits.
    """
    kinds = signature.args[-10:]
    _, _, first, shift, row_step, _, _, start, rows, run = arguments[-10:]
    acts, starts, tables, weights = (
        context.make_array(kinds[i])(context, builder, arguments[i - 10]).data for i in (0, 1, 5, 6)
    )
    form = form_of(result, kinds[0], kinds[5], kinds[6])
    pixels = 1 if alone else form.at_once
    sources = range(0, pixels, form.pixels)
    begins = [builder.add(builder.load(builder.gep(starts, [builder.add(first, INDEX(p))])), shift) for p in sources]
    weights = builder.gep(weights, [builder.mul(start, INDEX(form.weight_step))])
    found = {p: [] for p in range(pixels)}
    for lane in range(0, BLOCK, form.lanes * form.vectors):
        moves = [INDEX(lane + v * form.lanes) for v in range(form.vectors)]
        counters = {
            (p, v): [cgutils.alloca_once(builder, form.sum) for _ in range(form.counters)]
            for v in range(form.vectors)
            for p in sources
        }
        for places in counters.values():
            for place in places:
                builder.store(constant(form.sum, 0), place)
        with cgutils.for_range_slice(builder, INDEX(0), rows, INDEX(1)) as (r, _):
            down = builder.mul(r, row_step)
            images = [builder.gep(acts, [builder.mul(builder.add(begin, down), INDEX(form.step))]) for begin in begins]
            kernel = builder.gep(weights, [builder.mul(builder.mul(r, run), INDEX(form.weight_step))])

            def add_elements(i, count, images=images, kernel=kernel, moves=moves, counters=counters) -> None:
                values, columns = [], []
                for j in range(count):
                    at = builder.add(i, INDEX(j))
                    offset = builder.mul(at, INDEX(form.stride))
                    values.append([form.act(builder, builder.gep(image, [offset]), tables) for image in images])
                    column = builder.gep(kernel, [builder.mul(at, INDEX(form.weight_step))])
                    columns.append([form.weight(builder, builder.gep(column, [move])) for move in moves])
                for (p, v), places in counters.items():
                    pixel = p // form.pixels
                    form.add(builder, places, [row[pixel] for row in values], [column[v] for column in columns])

            whole = builder.sub(run, builder.urem(run, INDEX(form.turn)))
            with cgutils.for_range_slice(builder, INDEX(0), whole, INDEX(form.turn)) as (i, _):
                add_elements(i, form.turn)
            with cgutils.for_range_slice(builder, whole, run, INDEX(1)) as (i, _):
                add_elements(i, 1)
        for (p, _), places in counters.items():
            for q, total in enumerate(form.totals(builder, places)[: pixels - p]):
                found[p + q].append(total)
    return found


def _adder(alone: bool):
    """The intrinsic that adds deficits to one row of sums, or to as many as go at once."""

    @intrinsic
    def add(typing, target, at, acts, starts, first, shift, row_step, tables, weights, start, rows, run):
        """target[at + p * BLOCK + o] += deficits (``_deficits``), for each pixel p and output o; int16 or int32."""

        def generate(context, builder, signature, arguments):
            found = _deficits(context, builder, signature, arguments, signature.args[0], alone)
            target = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            for p, vectors in found.items():
                lanes = vectors[0].type.count
                for v, total in enumerate(vectors):
                    to = builder.gep(target, [builder.add(arguments[1], INDEX(p * BLOCK + v * lanes))])
                    wide = ir.VectorType(to.type.pointee, lanes)
                    to = widened(builder, to, lanes)
                    builder.store(builder.add(builder.load(to, align=1), zext(builder, total, wide)), to, align=1)
            return context.get_dummy_value()

        i = types.intp
        return types.void(target, i, acts, starts, i, i, i, tables, weights, i, i, i), generate

    return add


def _comparer(alone: bool):
    """The intrinsic that compares the sums of one pixel, or of as many as go at once, before they leave registers."""

    @intrinsic
    def compare(typing, masks, at, steps, step, limits, limit, outputs, acts, starts, first, shift, row_step, tables,
                weights, start, rows, run):  # fmt: skip
        """Bit o of masks[at + s * step + p] is deficit <= limits[limit + s * outputs + o], for each pixel p, step s.

        Args:
            masks: uint64.
            limits: int16 or int32, flat.
        """

        def generate(context, builder, signature, arguments):
            found = _deficits(context, builder, signature, arguments, signature.args[4], alone)
            masks, limits = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 4))
            _, at, steps, step, _, limit, outputs = arguments[:7]
            with cgutils.for_range_slice(builder, INDEX(0), steps, INDEX(1)) as (s, _):
                row = builder.gep(limits, [builder.add(limit, builder.mul(s, outputs))])
                for p, vectors in found.items():
                    lanes, mask = vectors[0].type.count, INDEX(0)
                    for v, total in enumerate(vectors):
                        ends = load(builder, builder.gep(row, [INDEX(v * lanes)]), lanes)
                        below = builder.icmp_signed("<=", zext(builder, total, ends.type), ends)
                        below = builder.bitcast(below, ir.IntType(lanes))
                        below = below if lanes == BLOCK else builder.zext(below, INDEX)
                        mask = builder.or_(mask, builder.shl(below, INDEX(v * lanes)))
                    to = builder.add(builder.add(at, INDEX(p)), builder.mul(s, step))
                    builder.store(mask, builder.gep(masks, [to]))
            return context.get_dummy_value()

        i = types.intp
        places = acts, starts, i, i, i, tables, weights, i, i, i
        return types.void(masks, i, i, i, limits, i, i, *places), generate

    return compare


add_deficits, add_deficits_of_one = _adder(alone=False), _adder(alone=True)
compare_deficits, compare_deficits_of_one = _comparer(alone=False), _comparer(alone=True)


@intrinsic
def at_once(typing, acts, tables, weights):
    """Pixels that ``add_deficits`` takes."""

    def generate(context, builder, signature, arguments):
        return INDEX(form_of(acts, acts, tables, weights).at_once)

    return types.intp(acts, tables, weights), generate


@intrinsic
def stays_in_registers(typing, acts):
    """Whether counters are as wide as sums, so that ``compare_deficits`` can be used."""

    def generate(context, builder, signature, arguments):
        return ir.IntType(1)(acts.dtype != types.uint16)

    return types.boolean(acts), generate


@intrinsic
def copy_words(typing, acts, at, bits, begin, count):
    """acts[at + i] = word begin + i of ``bits``, for i < count; uint32, and uint64 of two words each, lower first."""

    def generate(context, builder, signature, arguments):
        acts, bits = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        words = builder.bitcast(bits, ir.IntType(32).as_pointer())
        to, source = builder.gep(acts, [arguments[1]]), builder.gep(words, [arguments[3]])
        cgutils.raw_memcpy(builder, to, source, arguments[4], 4)
        return context.get_dummy_value()

    return types.void(acts, types.intp, bits, types.intp, types.intp), generate


@intrinsic
def at_most(typing, sums, at, limits, start):
    """Bit o of the uint64 result is sums[at + o] <= limits[start + o], for the BLOCK outputs from ``at`` on."""

    def generate(context, builder, signature, arguments):
        sums, limits = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        a, b = (load(builder, builder.gep(data, [arguments[i]]), BLOCK) for data, i in ((sums, 1), (limits, 3)))
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
        both = constant(lanes, 0)
        for code, shift in zip(arguments[2:], (8, 4), strict=True):
            word = builder.bitcast(code, words)
            word = builder.shuffle_vector(word, word, ir.Constant(lanes, [0] * 8 + [1] * 8))
            four = builder.and_(builder.lshr(word, ir.Constant(lanes, [*range(0, 32, 4)] * 2)), constant(lanes, 15))
            both = builder.or_(both, builder.shl(four, constant(lanes, shift)))
        to = widened(builder, builder.gep(acts, [arguments[1]]), 16)
        builder.store(builder.trunc(both, to.type.pointee), to, align=1)
        return context.get_dummy_value()

    return types.void(acts, types.intp, types.uint64, types.uint64), generate
