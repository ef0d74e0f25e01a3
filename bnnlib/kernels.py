"""Training kernels for the CPU, compiled by numba: XNOR/popcount forward, a backward that skips what pooling dropped.

Two facts about these networks make a step cheaper than its dense matrix products:

- A binary layer's forward pass needs no multiplication: with K bits that differ out of L, the sum of L products of ±1
  is L - 2 K (BNN, arXiv 1602.02830). In float32 the same sum is exact too, so the result is equal to the last bit.
- Behind a 2 x 2 max pooling only one of four outputs has a gradient. Both matrix products of the backward pass then
  need a quarter of their multiplications: every pooled gradient adds a multiple of a patch of inputs to the weight
  gradient of its channel, and a multiple of the kernel of its channel to a patch of the input gradient.

Everything lies channels last: images [N, H, W, C], kernels [O, K, K, C]. C and O are multiples of LANES.
All arrays are contiguous numpy views of torch tensors, the results too: nothing is allocated here, so that ``threads``
can hand out shares of a batch.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32  # floats that one step of a kernel takes: two AVX-512, four AVX2 registers, 32 bits of a packed word

compiled = njit(error_model="numpy", cache=True)


def _vector(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
    """Pointer to LANES elements from ``index`` on."""
    return builder.bitcast(builder.gep(pointer, [index]), ir.VectorType(element, LANES).as_pointer())


def _splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    """LANES copies of a scalar."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    zero = ir.Constant(ir.IntType(32), 0)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, zero), undefined, zeros)


def _rows_adder(rows: int) -> Callable:
    """The intrinsic that adds ``rows`` weighted rows at once.

    Numba's own loops over slices check for overlap each time and handle leftovers one by one: 1.6 times slower.
    """

    @intrinsic
    def add_rows(typing, target, at, source, starts, factors):
        """target[at : at + LANES] += sum_r factors[r] * source[starts[r] : starts[r] + LANES], flat indices."""

        def generate(context, builder, signature, arguments):
            target, at, source, starts, factors = arguments
            into = context.make_array(signature.args[0])(context, builder, target).data
            out_of = context.make_array(signature.args[2])(context, builder, source).data
            pointer = _vector(builder, into, at, ir.FloatType())
            sums = [builder.load(pointer, align=4), None]  # two, added in turn: one sum would wait for itself
            for r in range(rows):
                row = builder.load(_vector(builder, out_of, builder.extract_value(starts, r), ir.FloatType()), align=4)
                term = builder.fmul(row, _splat(builder, builder.extract_value(factors, r)), flags=["contract"])
                # "contract" lets the processor multiply and add in one instruction where it has one
                old = sums[r % 2]
                sums[r % 2] = term if old is None else builder.fadd(old, term, flags=["contract"])
            total = sums[0] if sums[1] is None else builder.fadd(*sums)
            builder.store(total, pointer, align=4)
            return context.get_dummy_value()

        starts_type, factors_type = types.UniTuple(types.intp, rows), types.UniTuple(types.float32, rows)
        return types.void(target, types.intp, source, starts_type, factors_type), generate

    return add_rows


add_1_row, add_4_rows, add_8_rows = _rows_adder(1), _rows_adder(4), _rows_adder(8)


@intrinsic
def sign_bits(typing, source, start):
    """Bit i of the uint32 result is source[start + i] >= 0, for a float32 array and a flat index."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        row = builder.load(_vector(builder, data, arguments[1], ir.FloatType()), align=4)
        zeros = ir.Constant(row.type, [0.0] * LANES)
        return builder.bitcast(builder.fcmp_ordered(">=", row, zeros), ir.IntType(LANES))

    return types.uint32(source, types.intp), generate


@intrinsic
def count_mismatches(typing, target, at, word, words, start):
    """target[at + i] += popcount(word ^ words[start + i]) for LANES i; int32 counts, uint32 words, flat indices."""

    def generate(context, builder, signature, arguments):
        counts = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        data = context.make_array(signature.args[3])(context, builder, arguments[3]).data
        pointer = _vector(builder, counts, arguments[1], ir.IntType(32))
        other = builder.load(_vector(builder, data, arguments[4], ir.IntType(32)), align=4)
        popcount = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(other.type, [other.type]), f"llvm.ctpop.v{LANES}i32"
        )
        differing = builder.call(popcount, [builder.xor(_splat(builder, arguments[2]), other)])
        builder.store(builder.add(builder.load(pointer, align=4), differing), pointer, align=4)
        return context.get_dummy_value()

    return types.void(target, types.intp, types.uint32, words, types.intp), generate


@compiled
def pack(x: np.ndarray, words: np.ndarray) -> None:
    """Signs of float32 ``x`` [..., C] to uint32 ``words`` [..., C / LANES]; x >= 0 is a set bit."""
    flat = words.reshape(-1)
    for i in range(flat.size):
        flat[i] = sign_bits(x, i * LANES)


@compiled
def xnor_conv(x: np.ndarray, words: np.ndarray, w: np.ndarray, y: np.ndarray) -> None:
    """Convolution of ±1 inputs with ±1 weights.

    Args:
        x: float32 [N, H, W, C].
        words: uint32 [N, H, W, C / LANES], room for its bits.
        w: uint32 [K, K, C / LANES, O], bits of the kernels from ``pack``, output channel last.
        y: float32 [N, H - K + 1, W - K + 1, O].
    """
    pack(x, words)
    n, height, width, outputs = y.shape
    counts = np.empty(outputs, np.int32)
    kernel, _, depth, _ = w.shape
    length = np.int32(kernel * kernel * depth * LANES)
    for a in range(n):
        for i in range(height):
            for j in range(width):
                counts[:] = 0
                at = 0
                for r in range(kernel):
                    for s in range(kernel):
                        for c in range(depth):
                            word = words[a, i + r, j + s, c]
                            for o in range(0, outputs, LANES):
                                count_mismatches(counts, o, word, w, at + o)
                            at += outputs
                for o in range(outputs):
                    y[a, i, j, o] = np.float32(length - 2 * counts[o])


@compiled
def image_conv(x: np.ndarray, w: np.ndarray, taps: np.ndarray, pooled: np.ndarray, winner: np.ndarray) -> None:
    """Convolution of images with few channels and 2 x 2 max pooling, without keeping what the pooling drops.

    Args:
        x: float32 [N, C, H, W], padded already.
        w: float32 [C K K, O].
        taps: intp [C K K], where the input of each weight lies in a flat image from the corner of its patch on.
        pooled, winner: as of ``max_pool``.
    """
    n, height, width, outputs = pooled.shape
    flat, columns = x.reshape(-1), x.shape[3]
    size = x.shape[1] * x.shape[2] * columns
    y = np.empty((4, outputs), np.float32)
    full = len(taps) // 8 * 8
    for a in range(n):
        for i in range(height):
            for j in range(width):
                y[:] = 0
                for k in range(4):
                    corner = a * size + (2 * i + (k >> 1)) * columns + 2 * j + (k & 1)
                    for t in range(0, full, 8):
                        f = (flat[corner + taps[t]], flat[corner + taps[t + 1]], flat[corner + taps[t + 2]],
                             flat[corner + taps[t + 3]], flat[corner + taps[t + 4]], flat[corner + taps[t + 5]],
                             flat[corner + taps[t + 6]], flat[corner + taps[t + 7]])  # fmt: skip
                        for o in range(0, outputs, LANES):
                            r = t * outputs + o
                            s = (r, r + outputs, r + 2 * outputs, r + 3 * outputs, r + 4 * outputs,
                                 r + 5 * outputs, r + 6 * outputs, r + 7 * outputs)  # fmt: skip
                            add_8_rows(y, k * outputs + o, w, s, f)
                    for t in range(full, len(taps)):
                        for o in range(0, outputs, LANES):
                            add_1_row(y, k * outputs + o, w, (t * outputs + o,), (flat[corner + taps[t]],))
                for o in range(outputs):
                    best, which = y[0, o], np.uint8(0)
                    for k in range(1, 4):
                        which = np.uint8(k) if y[k, o] > best else which
                        best = max(best, y[k, o])
                    pooled[a, i, j, o] = best
                    winner[a, i, j, o] = which


@compiled
def image_weight_gradient(
    winner: np.ndarray, grad: np.ndarray, x: np.ndarray, taps: np.ndarray, dw: np.ndarray
) -> None:
    """Add to the gradient of the weights of ``image_conv``; ``dw`` is float32 [1, C K K, O]."""
    n, height, width, outputs = winner.shape
    flat, columns = x.reshape(-1), x.shape[3]
    size = x.shape[1] * x.shape[2] * columns
    by = np.empty((4, outputs), np.float32)
    for a in range(n):
        for i in range(height):
            for j in range(width):
                for k in range(4):
                    for o in range(outputs):
                        by[k, o] = grad[a, i, j, o] if winner[a, i, j, o] == k else np.float32(0)
                corner = a * size + 2 * i * columns + 2 * j
                for t in range(len(taps)):
                    p = corner + taps[t]
                    f = (flat[p], flat[p + 1], flat[p + columns], flat[p + columns + 1])
                    for o in range(0, outputs, LANES):
                        s = (o, outputs + o, 2 * outputs + o, 3 * outputs + o)
                        add_4_rows(dw, t * outputs + o, by, s, f)


@compiled
def max_pool(y: np.ndarray, pooled: np.ndarray, winner: np.ndarray) -> None:
    """Largest of each 2 x 2 outputs and where it stood, the first of equals as in torch.

    Args:
        y: float32 [N, H, W, O].
        pooled: float32 [N, H // 2, W // 2, O].
        winner: uint8 of the same shape: 0 to 3, row by row.
    """
    n, height, width, outputs = pooled.shape
    for a in range(n):
        for i in range(height):
            for j in range(width):
                for o in range(outputs):
                    best = y[a, 2 * i, 2 * j, o]
                    which = np.uint8(0)
                    for k in range(1, 4):
                        other = y[a, 2 * i + (k >> 1), 2 * j + (k & 1), o]
                        which = np.uint8(k) if other > best else which
                        best = max(best, other)
                    pooled[a, i, j, o] = best
                    winner[a, i, j, o] = which


@compiled
def weight_gradient(winner: np.ndarray, grad: np.ndarray, x: np.ndarray, kernel: int, dw: np.ndarray) -> None:
    """Add to the gradient of the kernels of a convolution that a 2 x 2 max pooling follows.

    Args:
        winner: uint8 [N, h, w, O] from ``max_pool``.
        grad: float32 [N, h, w, O], of the pooled outputs.
        x: float32 [N, H, W, C], inputs of the convolution.
        kernel: K.
        dw: float32 [1, O, K, K, C].
    """
    n, height, width, outputs = winner.shape
    rows, columns, channels = x.shape[1:]
    length = kernel * channels
    cells = height * width
    group = 8
    start = np.zeros(cells + group, np.intp)
    factor = np.zeros(cells + group, np.float32)  # the last group is filled up with zeros
    for a in range(n):
        for o in range(outputs):
            p = 0
            for i in range(height):
                for j in range(width):
                    k = np.intp(winner[a, i, j, o])  # shifts: a division rounds down, which takes its time
                    start[p] = ((a * rows + 2 * i + (k >> 1)) * columns + 2 * j + (k & 1)) * channels
                    factor[p] = grad[a, i, j, o]
                    p += 1
            start[cells:] = start[0]
            for r in range(kernel):
                into = (o * kernel + r) * length
                row = r * columns * channels
                for p in range(0, cells, group):
                    f = (factor[p], factor[p + 1], factor[p + 2], factor[p + 3],
                         factor[p + 4], factor[p + 5], factor[p + 6], factor[p + 7])  # fmt: skip
                    s0, s1, s2, s3 = row + start[p], row + start[p + 1], row + start[p + 2], row + start[p + 3]
                    s4, s5, s6, s7 = row + start[p + 4], row + start[p + 5], row + start[p + 6], row + start[p + 7]
                    for c in range(0, length, LANES):
                        s = (s0 + c, s1 + c, s2 + c, s3 + c, s4 + c, s5 + c, s6 + c, s7 + c)
                        add_8_rows(dw, into + c, x, s, f)


@compiled
def input_gradient(winner: np.ndarray, grad: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """Add to the gradient of the inputs of a convolution that a 2 x 2 max pooling follows.

    Args:
        winner: uint8 [N, h, w, O] from ``max_pool``.
        grad: float32 [N, h, w, O], of the pooled outputs.
        w: float32 [K, K C / B, O, B]: the kernels, their rows in blocks of B values so that a block of all output
            channels stays in the first-level cache; B a multiple of LANES.
        dx: float32 [N, H, W, C].
    """
    n, height, width, outputs = winner.shape
    kernel, blocks, _, block = w.shape
    rows, columns, channels = dx.shape[1:]
    cells = height * width
    # the outputs of each cell ordered by where their winner stood: those that add to one patch are together
    order = np.empty((cells, outputs), np.intp)
    factor = np.empty((cells, outputs), np.float32)
    end = np.empty((cells, 5), np.intp)
    for a in range(n):
        for p in range(cells):
            i, j = p // width, p % width
            t = 0
            end[p, 0] = 0
            for k in range(4):
                for o in range(outputs):
                    # no branch: a loser is overwritten by the next output
                    if t < outputs:
                        order[p, t] = o * block
                        factor[p, t] = grad[a, i, j, o]
                    t += winner[a, i, j, o] == k
                end[p, k + 1] = t
        for r in range(kernel):
            for b in range(blocks):
                base = (r * blocks + b) * outputs * block
                for p in range(cells):
                    for k in range(4):
                        y, z = 2 * (p // width) + (k >> 1) + r, 2 * (p % width) + (k & 1)
                        into = ((a * rows + y) * columns + z) * channels + b * block
                        t = end[p, k]
                        while t + 4 <= end[p, k + 1]:
                            f = (factor[p, t], factor[p, t + 1], factor[p, t + 2], factor[p, t + 3])
                            s0, s1 = base + order[p, t], base + order[p, t + 1]
                            s2, s3 = base + order[p, t + 2], base + order[p, t + 3]
                            for c in range(0, block, LANES):
                                add_4_rows(dx, into + c, w, (s0 + c, s1 + c, s2 + c, s3 + c), f)
                            t += 4
                        while t < end[p, k + 1]:
                            s0 = base + order[p, t]
                            for c in range(0, block, LANES):
                                add_1_row(dx, into + c, w, (s0 + c,), (factor[p, t],))
                            t += 1
