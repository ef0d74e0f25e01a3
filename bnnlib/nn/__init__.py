"""Networks of few bits.

======================  ==========================================================
``quantizers``          real values to binary, ternary and fixed point; the gradient estimators
``thresholds``          below which magnitude a ternary activation is zero
``gradient_quantizer``  gradients of few bits
``layers``              layers whose operands are quantized
``planes``              activations as one or more bits with scales: XNOR-Net, HORQ, DoReFa-Net
``models``              LeNet5 and VGGNet7
``binarization``        other networks, binarized by name
``exact_gradients``     what the estimators estimate, for small networks
======================  ==========================================================
"""
