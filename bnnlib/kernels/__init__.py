"""Compiled products of binary and ternary operands.

Of training:

====================  ================================================================
``forward``           a network's forward pass by these kernels
``fused``             batch norm, quantizer and convolution as one step, in bytes
``convolution``       convolutions and their gradients, pooled ones too
``blocks``            what stands between two convolutions
``lookups``           products of the backward pass, by tables of sums (``lookup_simd``)
``tables``            products of the forward pass, by tables of sums
``threads``           the same for a batch, shared between threads
====================  ================================================================

Of packed networks, and of ``tables``:

====================  ================================================================
``layouts``           how operands lie in memory
``coding``            images and bits to that layout
``forms``             how sums come from it, an instruction set each
``deficits``          many sums at once, in registers
``dot_products``      a layer's sums, and their comparison with thresholds
====================  ================================================================

``simd`` has vector instructions that numba's loops do not give, ``processor`` what the processor at hand can do, and
``compiling`` when compiled code is kept.
"""
