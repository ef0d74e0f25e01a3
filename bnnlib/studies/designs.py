"""Which choices of binary and ternary operands a study trains: all of them, or a sample that tells their effects."""

from itertools import product

import numpy as np
from scipy.linalg import hadamard

from bnnlib.errors import UserError


def choices(length: int) -> list[str]:
    """All texts of so many ``b`` and ``t``, ``b`` first."""
    return ["".join(letters) for letters in product("bt", repeat=length)]


def designed_choices(length: int, seed: int = 0, held_out: int = 8) -> tuple[list[str], list[str]]:
    """A sample of all texts of ``b`` and ``t`` from which the effect of each place can be told, and others to check it.

    The sample is a two-level orthogonal array, the columns of a Hadamard matrix (R. Plackett, J. Burman, Biometrika
    33, 1946), with its mirror image, so that no effect of a place is mixed with one of a pair.

    Args:
        length: of the texts.
        seed: draws which columns are used, and what is held out.
        held_out: how many of those.

    Raises:
        UserError: the sample leaves fewer choices than that.
    """
    rng = np.random.default_rng(seed)
    size = 2 ** int(length).bit_length()
    columns = rng.choice(np.arange(1, size), length, replace=False)
    signs = hadamard(size)[:, columns]
    sample = list(dict.fromkeys("".join("bt"[int(s > 0)] for s in row) for row in np.concatenate([signs, -signs])))
    if held_out > 2**length - len(sample):
        raise UserError(
            f"held_out {held_out} is too many; {2**length - len(sample)} choices of {length} are not in the sample"
        )
    others: list[str] = []
    while len(others) < held_out:
        choice = "".join(rng.choice(["b", "t"], length))
        if choice not in sample and choice not in others:
            others.append(choice)
    return sample, others
