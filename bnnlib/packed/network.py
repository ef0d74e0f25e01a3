"""Executes a packed network on images, by integers up to the last sums."""

from pathlib import Path

import numpy as np
import torch
from numba import config

from bnnlib.errors import UserError
from bnnlib.kernels import coding, dot_products, processor
from bnnlib.kernels.layouts import BLOCK, bases, code_weights, elements, layout, table
from bnnlib.kernels.threads import share
from bnnlib.operands import OPERANDS
from bnnlib.packed.files import load
from bnnlib.packed.layers import IntegerLayer, IntegerNetwork
from bnnlib.specs import ARCHS

BATCH = 64  # images that go through a layer together: enough to read its weights once for many
ALONE = 2_000_000  # products of a layer that take one thread less time than to share them


class _Layer:
    """A layer as the kernels take it.

    Args:
        layer: its integers.
        size: height and width of its inputs.
        counting: ``word`` or ``table``; None for the layer that sees the image, which comes in numbers.
        levels: int16, the numbers of the image; of all others they are -1, 0 and 1.
    """

    def __init__(
        self, layer: IntegerLayer, size: tuple[int, int], counting: str | None, levels: np.ndarray | None = None
    ) -> None:
        levels = np.array([-1, 0, 1], np.int16) if levels is None else levels
        border = np.array([] if layer.border is None else [layer.border], np.int16)
        self.layer = layer
        self.form = form = layout(layer.act, layer.weight, counting, np.concatenate([levels, border]))
        if form.name == "bytes":
            levels, border = ((form.top - values) // form.factor for values in (levels, border))
        self.levels, self.border = levels.astype(form.act_dtype), int(border[0]) if border.size else coding.NO_BORDER
        _, k_h, k_w, channels = layer.weights.shape
        self.rows, self.columns = (extent + 2 * layer.pad for extent in size)
        self.elements = elements(channels, self.form)
        self.members, side = (4, 2) if layer.pool else (1, 1)
        self.out_size = (self.rows - k_h + 1) // side, (self.columns - k_w + 1) // side
        self.weights = code_weights(layer.weights, self.form, self.elements * self.form.group)
        self.blocks = len(self.weights)
        self.tables = table(self.form) if self.form.name == "table" else np.zeros((0, 16), np.uint8)
        self.in_width = size[1]
        alone = self.rows == k_h and self.columns == k_w  # one dot product per image
        self.mate = coding.NOBODY if not self.form.paired else coding.NEXT_IMAGE if alone else coding.NEXT_PIXEL
        # room for the one who only completes a pair
        self.room = self.out_size[1] + (self.mate == coding.NEXT_PIXEL and not layer.pool and self.out_size[1] % 2)
        self.bases = bases(layer.weights, self.form)
        self.limits = self._limits()
        self.before, self.after = (_words(flags, self.blocks) for flags in (layer.before, layer.after))

    def _limits(self) -> np.ndarray:
        """Thresholds of sums as limits of deficits, -1 for outputs that only fill up (no bit is then set)."""
        layer, form = self.layer, self.form
        most = layer.largest if form.name == "product" else 2 * layer.length // form.factor
        small = form.name in ("product", "table") and most < np.iinfo(np.int16).max
        limits = np.full((len(layer.thresholds), self.blocks * BLOCK), -1, np.int64)
        found = (self.bases - layer.thresholds) // form.factor
        limits[:, : len(layer.weights)] = found if form.name in ("product", "bytes") else found.clip(-1)
        return limits.astype(np.int16 if small else np.int32)

    def inputs(self, images: int) -> np.ndarray:
        """Room for the elements of so many images."""
        shape = (images * self.rows * self.columns * self.elements,)
        two = self.form.name == "word" and self.form.act_planes == 2
        if self.form.name == "bytes":  # four at once are read, beyond the last
            shape = (shape[0] + 3,)
        return np.empty((*shape, 2) if two else shape, self.form.act_dtype)

    def values(self, images: np.ndarray, threads: int) -> np.ndarray:
        """Elements of uint8 images [N, C, H, W]."""
        acts, rows = self.inputs(len(images)), len(images) * self.rows
        common = images, self.levels, self.layer.pad, self.border, acts
        if threads == 1 or len(images) == 1:
            coding.image_values(*common, 0, rows)
        else:
            coding.image_values_shared(threads, *common, rows)
        return acts

    def code(self, bits: np.ndarray, threads: int) -> np.ndarray:
        """Elements of bits uint64 [planes, N, H, W, words]."""
        acts, images = self.inputs(bits.shape[1]), bits.shape[1]
        rows, alone = images * self.rows, threads == 1 or images == 1  # one image takes less time than a thread's start
        common = bits, self.in_width, self.layer.pad
        if self.form.name in ("product", "bytes"):
            coding.code_values(*common, self.levels, self.elements, acts, 0, rows)
        elif self.form.name == "word":
            if alone:
                coding.code_words(*common, self.elements, acts, 0, rows)
            else:
                coding.code_words_shared(threads, *common, self.elements, acts, rows)
        elif alone:
            coding.code_tables(*common, self.form.group, self.mate, self.elements, acts, 0, rows)
        else:
            coding.code_tables_shared(threads, *common, self.form.group, self.mate, self.elements, acts, rows)
        return acts

    @property
    def geometry(self) -> tuple[int, int, int, int, int]:
        return self.rows, self.columns, self.elements, self.members, self.out_size[1]

    def bits(self, acts: np.ndarray, images: int, threads: int) -> tuple[np.ndarray, int]:
        """Bits of the outputs, uint64 [planes, N, H', W', words], and the number of dot products executed."""
        bits = np.empty((len(self.limits), images, self.out_size[0], self.room, self.blocks), np.uint64)
        dots = bits[0, ..., 0].size * self.members
        units = -(-dots // dot_products.TILE) * self.blocks
        common = acts, self.geometry, self.tables, self.weights, self.form.most, self.limits, self.before, self.after
        if threads == 1 or dots * self.layer.weights.size < ALONE:
            return bits, dot_products.to_bits(*common, bits, 0, units)
        return bits, dot_products.to_bits_shared(threads, *common, bits, units)

    def sums(self, acts: np.ndarray, images: int) -> tuple[np.ndarray, int]:
        """Sums of the last layer, int32 [N, outputs], and the number of dot products executed."""
        out = np.empty((images, len(self.layer.weights)), np.int32)
        units = -(-images // dot_products.TILE) * self.blocks
        common = acts, self.geometry, self.tables, self.weights, self.form.most, self.form.factor, self.bases
        return out, dot_products.to_sums(*common, out, 0, units)


def _words(flags: np.ndarray, blocks: int) -> np.ndarray:
    """Bits [O] as uint64 [blocks]."""
    filled = np.zeros(blocks * BLOCK, bool)
    filled[: len(flags)] = flags
    return np.packbits(filled, bitorder="little").view("<u8").astype(np.uint64)


class PackedNet:
    """A packed network, ready to run.

    Args:
        network: what ``pack`` or ``load`` gave.
        counting: ``word`` (XNOR and popcount) or ``table``; None is the faster one on this processor.
        threads: None is as many as torch uses.

    Attributes:
        network: the same.
        levels: int16 [256], the integer that each brightness stands for.
        executed: dot products of the last call of ``sums``, by layer; those that a pooling drops are not executed.
    """

    def __init__(self, network: IntegerNetwork, counting: str | None = None, threads: int | None = None) -> None:
        self.network, self.threads = network, threads
        self.executed: dict[str, int] = {}
        grey = np.arange(256, dtype=np.int16)
        if OPERANDS[network.spec.image] == "binary":
            self.levels = np.where(2 * grey >= 255, 1, -1).astype(np.int16)
        else:
            self.levels = 2 * grey - 255 if ARCHS[network.spec.arch].signed_image else grey
        self.layers, size, chosen, levels = [], network.image[1:], None, self.levels
        for layer in network.layers:
            self.layers.append(_Layer(layer, size, chosen, levels))
            size, chosen, levels = self.layers[-1].out_size, counting or processor.counting(), None

    @classmethod
    def load(cls, path: Path | str, counting: str | None = None, threads: int | None = None) -> "PackedNet":
        """The network of a file; UserError if it is damaged."""
        return cls(load(path), counting, threads)

    def sums(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """Integer sums of the last layer, int32 [N, classes], of uint8 images [N, C, H, W]."""
        x = np.ascontiguousarray(images)
        wanted = "x".join(map(str, self.network.image))
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != self.network.image:
            raise UserError(f"images are {x.dtype} {list(x.shape)}; this network takes uint8 [N, {wanted}]")
        self.executed = dict.fromkeys((layer.layer.name for layer in self.layers), 0)
        parts = [self._sums(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.network.scale)), np.int32)

    def _sums(self, x: np.ndarray) -> np.ndarray:
        threads = min(self.threads or torch.get_num_threads(), config.NUMBA_NUM_THREADS)
        if threads > 1:
            share(threads)
        first, *_, last = self.layers
        acts = first.values(x, threads)
        for layer, behind in zip(self.layers, self.layers[1:], strict=False):
            bits, executed = layer.bits(acts, len(x), threads)
            self._count(layer, executed)
            acts = behind.code(bits, threads)
        found, executed = last.sums(acts, len(x))
        self._count(last, executed)
        return found

    def _count(self, layer: _Layer, executed: int) -> None:
        self.executed[layer.layer.name] += executed * len(layer.layer.weights) // (layer.blocks * BLOCK)

    def logits(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """Logits, float64 [N, classes], of uint8 images [N, C, H, W]."""
        return self.sums(images) * self.network.scale + self.network.shift

    def predict(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """The class of each of uint8 images [N, C, H, W], int64 [N]; the first of equals."""
        return self.logits(images).argmax(1)
