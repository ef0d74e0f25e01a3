"""Networks of few bits.

======================  ==========================================================
``quantizers``          values to operands, and the gradient estimators
``thresholds``          from which magnitude on a ternary activation is not zero
``gradient_quantizer``  gradients of few bits
``layers``              layers whose operands are quantized
``planes``              activations as several bits: XNOR-Net, HORQ, DoReFa-Net
``models``              LeNet5 and VGGNet7
``binarization``        other networks, binarized by name
``exact_gradients``     what the estimators estimate, for small networks
======================  ==========================================================
"""
