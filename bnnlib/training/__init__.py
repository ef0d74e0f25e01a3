"""Training.

================  ==============================================================
``loop``          the training loop
``evaluation``    loss, accuracy and predictions on images that are not trained on
``objective``     loss, regulariser, optimizer, learning rate
``augment``       batches of augmented images
``execution``     options that change the speed of a training, not its result
``checkpoints``   the state of an unfinished training, read and checked
``fitting``       ``fit``, for networks and data of one's own
``pretraining``   float networks trained beforehand, as starting weights or as teacher
``averaging``     averages of weights
``stages``        what changes between epochs: annealed estimators, operands that become binary in steps
``bop``           an optimizer without latent weights
``flips``         how many weights an epoch changes
================  ==============================================================
"""
