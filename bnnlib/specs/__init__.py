"""Specs: frozen descriptions of a network, a training and a run, checked when they are made.

=================  ===========================================================
``architectures``  the layers of LeNet5, VGGNet7 and what is registered
``network``        ``ModelSpec``: an architecture with the operands of each layer
``training``       ``TrainSpec``: data set, optimizer, schedule, loss
``run``            ``RunSpec``: a network, a training and a seed
``base``           what they share: dictionary, hash, checks
=================  ===========================================================
"""

from bnnlib.specs.architectures import ARCHS, Arch, Layer, register_architecture
from bnnlib.specs.network import ESTIMATORS, PLANES, ModelSpec
from bnnlib.specs.run import RunSpec
from bnnlib.specs.training import DATASETS, OWN, STAGES, TrainSpec

__all__ = [
    "ARCHS", "DATASETS", "ESTIMATORS", "OWN", "PLANES", "STAGES", "Arch", "Layer", "ModelSpec", "RunSpec", "TrainSpec",
    "register_architecture",
]  # fmt: skip
