"""Trained networks, using integers only: bits for binary and ternary operands, thresholds for batch norm and sign.

``pack(model, spec)`` folds a trained network, ``PackedNet`` executes it with XNOR and popcount (or tables of sums of
products, where the processor counts no bits in its vectors), and ``save`` and ``load`` keep it in a file.

=============  =================================================================
``fold``       a trained network to integer layers
``layers``     what an integer layer is
``network``    their execution
``reference``  the same in PyTorch, for comparison, and networks read back from files
``files``      packed files: written, read, checked
``pictures``   pictures of any size as images of MNIST or CIFAR-10
=============  =================================================================
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
