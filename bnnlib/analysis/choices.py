"""All ways to choose binary or ternary, layer by layer: the true front, what a greedy recipe finds of it, and a model.

A choice is a text of ``b`` and ``t``, weights first, then activations: ``tbbbbtt`` is LeNet5 with the weights ``tbbb``
and the activations ``btt``. A greedy recipe needs to train only the neighbours of the choices it stands on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bnnlib.energy import UJ_PER_FJ, Table, energy_fj
from bnnlib.energy.profiling import profile
from bnnlib.errors import UserError
from bnnlib.specs import ARCHS, ModelSpec
from bnnlib.studies.designs import choices


def operands(arch: str) -> list[str]:
    """What each letter of a choice is: ``conv1 weights``, ..., ``conv2 inputs``, ..."""
    layers = [layer.name for layer in ARCHS[arch].layers]
    return [f"{layer} weights" for layer in layers] + [f"{layer} inputs" for layer in layers[1:]]


def energies(arch: str, of: list[str], table: Table | str = "icmla2020") -> dict[str, float]:
    """Microjoules of choices, each the sum of its layers; fast enough for all of VGGNet7's.

    Args:
        arch: the network, at full size.
        of: the choices.
        table: energy table.
    """
    layers = len(ARCHS[arch].layers)
    uj = {
        pair: energy_fj(profile(ModelSpec(arch, pair[0] * layers, pair[1] * (layers - 1))), table).to_numpy()
        * UJ_PER_FJ
        for pair in choices(2)
    }
    texts = np.array([list(choice) for choice in of])
    weights, acts = texts[:, :layers] == "t", np.pad(texts[:, layers:] == "t", ((0, 0), (1, 0)))  # the image has 8 bits
    per_layer = np.where(weights, np.where(acts, uj["tt"], uj["tb"]), np.where(acts, uj["bt"], uj["bb"]))
    return dict(zip(of, per_layer.sum(1).tolist(), strict=True))


def neighbours(choice: str) -> list[str]:
    """What has one operand more in ternary."""
    return [choice[:i] + "t" + choice[i + 1 :] for i, letter in enumerate(choice) if letter == "b"]


def front(energy: Mapping[str, float], accuracy: Mapping[str, float]) -> list[str]:
    """The choices of ``accuracy`` that none beats at no higher energy, from the cheapest on."""
    found: list[str] = []
    for choice in sorted(accuracy, key=lambda c: (energy[c], -accuracy[c])):
        if not found or accuracy[choice] > accuracy[found[-1]]:
            found.append(choice)
    return found


@dataclass(frozen=True)
class Path:
    """Where the greedy recipe went.

    Attributes:
        steps: the choices it stood on, from all binary on.
        trained: all that it looked at, in that order.
    """

    steps: list[str]
    trained: list[str]


def greedy(energy: Mapping[str, float], accuracy: Mapping[str, float]) -> Path:
    """From all binary, always make ternary the operand that gains most accuracy per microjoule, while one gains any.

    An operand that costs nothing more and gains goes first.

    Args:
        energy, accuracy: of all choices; those of a neighbour are looked at when its turn comes.
    """
    current = "b" * len(next(iter(energy)))
    steps, trained = [current], [current]
    while True:
        near = neighbours(current)
        trained += [choice for choice in near if choice not in trained]
        gains = {c: accuracy[c] - accuracy[current] for c in near}
        better = [c for c in near if gains[c] > 0]
        if not better:
            return Path(steps, trained)
        dear = {c: max(energy[c] - energy[current], 1e-12) for c in better}
        current = max(better, key=lambda c: (gains[c] / dear[c], gains[c]))
        steps.append(current)


def best_within(energy: Mapping[str, float], accuracy: Mapping[str, float], among: list[str], budget_uj: float) -> str:
    """The most accurate of some choices within a budget.

    Raises:
        UserError: none is that cheap.
    """
    fitting = [choice for choice in among if energy[choice] <= budget_uj]
    if not fitting:
        raise UserError(f"budget {budget_uj!r} uJ is too small; the cheapest needs {min(energy.values()):.4f} uJ")
    return max(fitting, key=lambda choice: (accuracy[choice], -energy[choice]))


class Effects:
    """accuracy = constant + an effect of each ternary operand (+ one of each pair of them), by least squares.

    Attributes:
        names: of the coefficients: a position, or two.
        coefficients: in points; that of no name is the first.
        residual: standard deviation of what is left, in points.
        errors: standard errors of the coefficients.
    """

    def __init__(self, accuracy: Mapping[str, float], pairs: bool = False) -> None:
        """Fit to some choices.

        Raises:
            UserError: they are too few, or too alike, for so many effects.
        """
        self.length, self.pairs = len(next(iter(accuracy))), pairs
        orders = (0, 1, 2) if pairs else (0, 1)
        self.names = [names for order in orders for names in combinations(range(self.length), order)]
        x, y = self._rows(list(accuracy)), np.array(list(accuracy.values()))
        if np.linalg.matrix_rank(x) < len(self.names) or len(y) <= len(self.names):
            raise UserError(f"{len(y)} choices do not determine {len(self.names)} effects; train more of them")
        self.coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
        rest = y - x @ self.coefficients
        self.residual = float(np.sqrt(rest @ rest / (len(y) - len(self.names))))
        self.errors = self.residual * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
        hat = np.einsum("ij,jk,ik->i", x, np.linalg.inv(x.T @ x), x)
        self.left_out = float(np.sqrt(np.mean((rest / (1 - hat)) ** 2)))  # each predicted from all the others

    def _rows(self, of: list[str]) -> np.ndarray:
        ternary = np.array([[letter == "t" for letter in choice] for choice in of], dtype=float)
        return np.stack([ternary[:, list(names)].prod(1) for names in self.names], 1)

    def predict(self, of: list[str]) -> dict[str, float]:
        """The accuracy of other choices, in percent."""
        return dict(zip(of, (self._rows(of) @ self.coefficients).tolist(), strict=True))
