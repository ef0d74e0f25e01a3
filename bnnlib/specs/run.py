"""A run as a spec: one network, one training, one seed."""

from dataclasses import dataclass, field

from bnnlib.specs.base import Spec, number
from bnnlib.specs.network import ModelSpec
from bnnlib.specs.training import TrainSpec


@dataclass(frozen=True)
class RunSpec(Spec):
    """One network, one protocol, one seed. Study and name say where its result lives and are not part of the hash."""

    model: ModelSpec
    train: TrainSpec
    seed: int
    study: str = field(default="scratch", compare=False)
    name: str = field(default="run", compare=False)

    def __post_init__(self) -> None:
        number("seed", self.seed, 0, int)

    @property
    def network(self) -> str:
        """``L1T`` of ``L1T-short``."""
        return self.name.rpartition("-")[0]

    @property
    def protocol(self) -> str:
        """``short`` of ``L1T-short``."""
        return self.name.rpartition("-")[2]

    def as_dict(self) -> dict:
        return {"model": self.model.as_dict(), "train": self.train.as_dict(), "seed": self.seed}
