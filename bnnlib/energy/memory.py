"""Energy of memory accesses, which is no part of ``cost.energy_fj``: the paper's numbers do not contain it."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bnnlib import paths
from bnnlib.energy.cost import UJ_PER_FJ, profiled
from bnnlib.energy.tables import read_rows
from bnnlib.errors import UserError
from bnnlib.specs import ModelSpec

if TYPE_CHECKING:
    from torch import nn

COLUMNS = ["memory", "size_kb", "access_bits", "energy_pj", "low_pj", "high_pj", "how", "source", "note"]


def memory_fj(rows: pd.DataFrame, table: str = "memory45") -> pd.DataFrame:
    """Femtojoules of memory accesses per layer for one classification: columns ``weights_fj`` and ``activations_fj``.

    Every weight is read once, every input of a layer is written once and read once. The weights lie in one memory that
    holds all of them, the activations in another that holds the input and output of any layer; what is larger than the
    largest cache of the table lies in DRAM.

    Args:
        rows: what ``profile`` gave.
        table: name of a memory table in ``data/energy``.
    """
    inputs = rows["activation_bits"]
    weights_bit_fj = bit_fj(rows["weight_bits"].sum(), table)
    activations_bit_fj = bit_fj((inputs + inputs.shift(-1, fill_value=0)).max(), table)
    return pd.DataFrame(
        {"weights_fj": rows["weight_bits"] * weights_bit_fj, "activations_fj": 2 * inputs * activations_bit_fj}
    )


def memory_uj(network: "nn.Module | ModelSpec | pd.DataFrame", table: str = "memory45") -> float:
    """Microjoules of memory accesses of one classification; to be shown beside ``energy_uj``, not within it."""
    return float(memory_fj(profiled(network), table).to_numpy().sum() * UJ_PER_FJ)


def bit_fj(size_bits: float, table: str = "memory45") -> float:
    """Femtojoules to read or write one bit of a memory of ``size_bits``.

    Linear between the caches of the table in the logarithms of size and energy (about the root of the size), constant
    under the smallest, DRAM over the largest.
    """
    path = paths.ENERGY / f"{table}.csv"
    if not path.is_file():
        raise UserError(f"memory table {table!r} is unknown; use memory45")
    rows = read_rows(path, COLUMNS)
    rows["bit_fj"] = rows["energy_pj"] * 1000 / rows["access_bits"]
    caches = rows[rows["memory"] == "cache"].sort_values("size_kb")
    size_kb = size_bits / 8 / 1024
    if size_kb > caches["size_kb"].max():
        return float(rows.loc[rows["memory"] == "dram", "bit_fj"].iloc[0])
    return float(np.exp(np.interp(np.log(max(size_kb, 1e-9)), np.log(caches["size_kb"]), np.log(caches["bit_fj"]))))
