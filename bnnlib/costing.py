"""What a network costs as a table for people: the same digits in the terminal, in a notebook and on a page."""

import pandas as pd

from bnnlib.energy import UJ_PER_FJ, Table, energy_fj, profile
from bnnlib.specs import ModelSpec


def cost_rows(spec: ModelSpec, table: Table | str = "icmla2020") -> pd.DataFrame:
    """The profile of a network with the column ``energy_fj``, femtojoules a classification, by an energy table.

    Raises:
        UserError: the table is unknown or lacks an operand pair.
    """
    rows = profile(spec)
    rows["energy_fj"] = energy_fj(rows, table)
    return rows


def printed(rows: pd.DataFrame) -> pd.DataFrame:
    """``cost_rows`` as text, with a last row of totals; energies in microjoules."""
    total = rows["energy_fj"].sum() * UJ_PER_FJ
    lines = [
        (row.name, f"{row.macs:,}", f"{row.vector_length:,}", row.act, row.weight, f"{uj:.4f}", f"{uj / total:.1%}")
        for row in rows.itertuples()
        for uj in [row.energy_fj * UJ_PER_FJ]
    ]
    lines.append(("total", f"{rows['macs'].sum():,}", "", "", "", f"{total:.4f}", ""))
    return pd.DataFrame(lines, columns=["layer", "MACs", "vector", "activation", "weight", "uJ", "share"])
