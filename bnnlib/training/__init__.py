"""Training.

================  ==============================================================
``loop``          the training loop; ``evaluation`` is its other half
``objective``     loss, optimizer, learning rate
``augment``       batches of changed images
``execution``     options of speed
``checkpoints``   the state of a training on disk
``fitting``       ``fit``, for networks and data of one's own
``pretraining``   starts and teachers: float networks that come first
``averaging``     averages of weights
``stages``        operands that become binary in steps
``bop``           an optimizer without latent weights
``flips``         how many weights an epoch changes
================  ==============================================================
"""
