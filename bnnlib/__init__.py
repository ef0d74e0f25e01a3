"""Efficient binary neural networks: quantizers, networks, their training and their energy."""

from bnnlib.errors import UserError
from bnnlib.models import build
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec

__version__ = "0.2.0"
__all__ = ["ModelSpec", "RunSpec", "TrainSpec", "UserError", "build"]
