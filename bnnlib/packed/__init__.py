"""Trained networks with integers alone: bits for weights and activations, thresholds for batch norm and sign.

``pack(model, spec)`` folds a trained network, ``PackedNet`` executes it with XNOR and popcount (or tables of products,
where the processor counts no bits in its vectors), and ``save`` and ``load`` keep it in a file of its weights' bits.
"""

from bnnlib.packed.files import as_bytes, load, save
from bnnlib.packed.fold import check_packable, pack
from bnnlib.packed.layers import IntegerLayer, IntegerNetwork
from bnnlib.packed.network import PackedNet
from bnnlib.packed.reference import norms, read, restored

__all__ = [
    "IntegerLayer",
    "IntegerNetwork",
    "PackedNet",
    "as_bytes",
    "check_packable",
    "load",
    "norms",
    "pack",
    "read",
    "restored",
    "save",
]
