"""What a network costs as a table for people: the same digits in the terminal, in a notebook and on a page."""

import pandas as pd

from bnnlib.energy import UJ_PER_FJ, Table, energy_fj, memory_fj, profile
from bnnlib.specs import ModelSpec


def cost_rows(spec: ModelSpec, table: Table | str = "icmla2020", memory: str | None = None) -> pd.DataFrame:
    """The profile of a network with the column ``energy_fj``, femtojoules per classification, by an energy table.

    Args:
        memory: a memory table: one more column, ``memory_fj``, for reading weights and moving activations.

    Raises:
        UserError: a table is unknown or lacks an operand pair.
    """
    rows = profile(spec)
    rows["energy_fj"] = energy_fj(rows, table)
    if memory:
        rows["memory_fj"] = memory_fj(rows, memory).sum(axis=1)
    return rows


def printed(rows: pd.DataFrame) -> pd.DataFrame:
    """``cost_rows`` as text, with a last row of totals; energies in microjoules, of memory in a column of its own."""
    total = rows["energy_fj"].sum() * UJ_PER_FJ
    lines = [
        (row.name, f"{row.macs:,}", f"{row.vector_length:,}", row.act, row.weight, f"{uj:.4f}", f"{uj / total:.1%}")
        for row in rows.itertuples()
        for uj in [row.energy_fj * UJ_PER_FJ]
    ]
    lines.append(("total", f"{rows['macs'].sum():,}", "", "", "", f"{total:.4f}", ""))
    text = pd.DataFrame(lines, columns=["layer", "MACs", "vector", "activation", "weight", "uJ", "share"])
    if "memory_fj" in rows:
        memory_uj = rows["memory_fj"] * UJ_PER_FJ
        text["memory uJ"] = [f"{uj:.4f}" for uj in (*memory_uj, memory_uj.sum())]
    return text
