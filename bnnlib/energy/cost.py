"""Energy of a classification: multiply-accumulates by operand pair and vector length, times the femtojoules of a table.

The energy of memory accesses is a separate matter with a table of its own (``memory``) and is never part of this: the
paper's numbers do not contain it.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bnnlib.energy.profiling import profile
from bnnlib.energy.tables import Table, load_table
from bnnlib.specs import ModelSpec

if TYPE_CHECKING:
    from torch import nn

UJ_PER_FJ = 1e-9


def energy_fj(
    rows: pd.DataFrame, table: Table | str = "icmla2020", column: str = "energy_fj", factors: np.ndarray | None = None
) -> pd.Series:
    """Femtojoules of each layer for one classification: a value per row of a profile.

    Args:
        rows: what ``profile`` gave.
        table: a table or its name.
        column: ``energy_fj``, or the bounds ``low_fj`` and ``high_fj``.
        factors: of each row, where its operands are not as busy as the table assumes (``hardware.activity.factors``).

    Raises:
        UserError: the table is unknown or lacks an operand pair.
    """
    table = load_table(table) if isinstance(table, str) else table
    pairs = zip(rows["act"], rows["weight"], rows["vector_length"], strict=True)
    costs = np.array([table.cost(*pair, column) for pair in pairs], dtype=float)
    if factors is not None:
        costs = costs * factors
    return pd.Series(rows["macs"].to_numpy() * costs, rows.index, name=column)


def energy_uj(
    network: "nn.Module | ModelSpec | pd.DataFrame", table: Table | str = "icmla2020", factors: np.ndarray | None = None
) -> float:
    """Microjoules of the multiply-accumulates of one classification.

    >>> network = ModelSpec("lenet5", weights="bbbb", acts="bbb")
    >>> f"{energy_uj(network):.4f}"
    '0.0188'

    Args:
        network: a network, its spec or its profile.
        table, factors: as of ``energy_fj``.

    Raises:
        UserError: the table is unknown or lacks an operand pair.
    """
    return float(energy_fj(profiled(network), table, factors=factors).sum() * UJ_PER_FJ)


def profiled(network: "nn.Module | ModelSpec | pd.DataFrame") -> pd.DataFrame:
    """The profile of a network, unless it is one already."""
    return network if isinstance(network, pd.DataFrame) else profile(network)
