"""Operands in bits, and random vectors of them.

binary    1 bit: 1 is +1, 0 is -1
ternary   2 bits: non-zero, and negative (0 where the value is zero)
fixedK    K bits, two's complement, lowest first
"""

import re
from dataclasses import dataclass

import numpy as np

from bnnlib.errors import UserError

MOST_BITS = 16


@dataclass(frozen=True)
class Operand:
    """How one kind of value is coded.

    Args:
        name: ``binary``, ``ternary``, ``fixed2`` … ``fixed16``.
        bits: of its code.
    """

    name: str
    bits: int

    @classmethod
    def named(cls, name: str) -> "Operand":
        """An operand by name.

        Raises:
            UserError: there is none of that name that a unit can be made for.
        """
        if name in ("binary", "ternary"):
            return cls(name, 1 if name == "binary" else 2)
        match = re.fullmatch(r"fixed([1-9]\d?)", name)
        if not match or not 2 <= int(match[1]) <= MOST_BITS:
            raise UserError(f"operand {name!r} has no unit; use binary, ternary, or fixed2 to fixed{MOST_BITS}")
        return cls(name, int(match[1]))

    @property
    def fixed(self) -> bool:
        return self.name.startswith("fixed")

    def random(self, rng: np.random.Generator, shape: tuple[int, ...], zeros: float = 1 / 3) -> np.ndarray:
        """Integers, uniform but for the share of ``zeros`` of a ternary operand."""
        if self.name == "binary":
            return rng.integers(0, 2, shape) * 2 - 1
        if self.name == "ternary":
            return (rng.integers(0, 2, shape) * 2 - 1) * (rng.random(shape) >= zeros)
        half = 1 << (self.bits - 1)
        return rng.integers(-half, half, shape)

    def code(self, values: np.ndarray) -> np.ndarray:
        """The bits of integers, bool [..., bits]."""
        if self.name == "binary":
            return (values > 0)[..., None]
        if self.name == "ternary":
            return np.stack([values != 0, values < 0], -1)
        return (values[..., None] >> np.arange(self.bits) & 1).astype(bool)
