"""What a study is made of: networks, protocols, and how many seeds each network gets under which protocol."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bnnlib.specs import ModelSpec, RunSpec, TrainSpec


@dataclass(frozen=True)
class Protocol:
    """A training for float and one for quantized networks, and how many seeds each network gets.

    Args:
        float_train, train: the protocols.
        seeds: number of seeds of a network, by name; ``""`` is any other.
        width: factor on the width of every network.
        model: fields of the ModelSpec that are other for every network.
    """

    float_train: TrainSpec
    train: TrainSpec
    seeds: dict[str, int]
    width: float = 1
    model: dict = field(default_factory=dict)

    def planned_seeds(self, networks: dict[str, ModelSpec]) -> dict[str, int]:
        """How many seeds each network is to have."""
        return {network: self.seeds.get(network, self.seeds.get("", 0)) for network in networks}

    def runs(self, study: str, protocol: str, network: str, model: ModelSpec, changes: dict) -> Iterator[RunSpec]:
        """The runs of a network, one per seed; its training has some fields of the protocol's changed."""
        spec = self.float_train if set(model.weights + model.acts) == {"f"} else self.train
        model = model.but(width=model.width * self.width, **self.model)
        for seed in range(self.planned_seeds({network: model})[network]):
            yield RunSpec(model, spec.but(**changes), seed, study, f"{network}-{protocol}")


class Method(NamedTuple):
    """What a network of a study makes otherwise than the baseline.

    Args:
        changes: the part of the training that is other, in a word or two.
        source: where the method is from.
    """

    changes: str = "not described"
    source: str = ""


@dataclass(frozen=True)
class Study:
    """Networks and protocols, each by name, and what is trained otherwise than the protocol says.

    Args:
        networks, protocols: by name.
        changes: fields of the TrainSpec that are other for a network (``SGD``), or only for a run (``PTRELU-short``).
        methods: what each network stands for, where the study compares methods; of others nothing is said.
        homes: by network, the study that has its results, where this one has no seeds of it. That of ``binary``, the
            baseline, is what makes a study one of methods.
    """

    networks: dict[str, ModelSpec]
    protocols: dict[str, Protocol]
    changes: dict[str, dict] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)

    def method(self, network: str) -> Method:
        """What a network stands for."""
        return self.methods.get(network, Method())

    def changed(self, network: str, protocol: str) -> dict:
        """The changes of a network under a protocol."""
        return self.changes.get(network, {}) | self.changes.get(f"{network}-{protocol}", {})
