"""Compiled products of binary and ternary operands.

Of training:

====================  ================================================================
``forward``           a network's forward pass by these kernels
``fused``             batch norm, quantizer and convolution as one step, in bytes
``convolution``       convolutions and their gradients, pooled ones too
``blocks``            batch norm, quantizer and border between two convolutions
``lookups``           products of the backward pass, by tables of sums
``lookup_simd``       its vector instructions
``threads``           all of these for a batch, shared between threads
``tables``            products of the forward pass, by tables of sums
====================  ================================================================

Of packed networks, and of ``tables``:

====================  ================================================================
``layouts``           how operands lie in memory
``coding``            images and bits to that layout
``forms``             how each layout computes deficits, as LLVM code
``deficits``          deficits of several pixels and outputs at once, in registers
``dot_products``      a layer's sums, and their comparison with thresholds
====================  ================================================================

Of both:

====================  ================================================================
``simd``              vector instructions that numba's loops do not give
``processor``         what the processor at hand can do
``compiling``         how kernels are compiled, and when compiled code is reused
====================  ================================================================
"""
