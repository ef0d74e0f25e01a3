"""Efficient binary neural networks: quantizers, networks, their training and their energy."""

from importlib import import_module

from bnnlib.errors import UserError
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec, register_architecture

__version__ = "0.2.0"

# imported when they are first asked for: pandas and torchvision take seconds, which `bnn --help` need not wait for
_LATER = {
    "Data": "data",
    "build": "nn.models",
    "binarize": "nn.binarization",
    "energy_uj": "energy",
    "export_onnx": "export",
    "fit": "training.fitting",
    "profile": "energy",
    "register_dataset": "data",
    "register_estimator": "nn.quantizers",
}
__all__ = ["ModelSpec", "RunSpec", "TrainSpec", "UserError", "register_architecture", *_LATER]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'bnnlib' has no attribute {name!r}")
    return getattr(import_module(f"bnnlib.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
