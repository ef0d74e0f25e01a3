"""Tables of energies per operation: the CSV files of ``data/energy``, read and checked.

A table has a row per operand pair, and where the energy depends on it also a vector length; ``data/energy/README.md``
says where each number comes from.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from bnnlib import paths
from bnnlib.errors import UserError

ENERGIES = ["energy_fj", "low_fj", "high_fj"]
COLUMNS = ["activation", "weight", "vector_length", *ENERGIES, "how", "source", "note"]
HOW = ("read", "digitised", "derived", "synthesised")
OPERAND = r"binary|ternary|float(?:16)?|fixed(?:[2-9]|[1-9][0-9])?"


@dataclass(frozen=True, eq=False)
class Table:
    """Femtojoules per MAC.

    Args:
        name: of the file in ``data/energy``.
        rows: its content, one row per operand pair and vector length; see ``COLUMNS``.
    """

    name: str
    rows: pd.DataFrame

    @cached_property
    def pairs(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The rows of each pair (activation, weight), in order of vector length."""
        return dict(iter(self.rows.sort_values("vector_length").groupby(["activation", "weight"])))

    def find(self, act: str, weight: str) -> pd.DataFrame | None:
        """The rows of a pair, or None. A row for ``fixed8`` goes before one for ``fixed``, which is any width."""
        for pair in ((act, weight), (act, _class(weight)), (_class(act), weight), (_class(act), _class(weight))):
            if pair in self.pairs:
                return self.pairs[pair]
        return None

    def cost(self, act: str, weight: str, vector_length: int, column: str = "energy_fj") -> float:
        """Femtojoules of one MAC within a dot product of ``vector_length``.

        Between two vector lengths of the table it is interpolated linearly in the logarithm of the length, outside it
        is constant. Synthesised rows are interpolated, and continued beyond, linearly in 1 / length: what a unit has
        once is shared by all products (``hardware.law``).

        Args:
            column: ``energy_fj``, or the bounds ``low_fj`` and ``high_fj``.

        Raises:
            UserError: the table has no row for the pair.
        """
        return _cost(self, act, weight, vector_length, column)


@lru_cache(maxsize=8192)  # the networks of a study share most of their layers
def _cost(table: Table, act: str, weight: str, vector_length: int, column: str) -> float:
    rows = table.find(act, weight)
    if rows is None:
        others = [name for name in table_names() if load_table(name).find(act, weight) is not None]
        raise UserError(
            f"table {table.name!r} has no energy for activation {act} x weight {weight}; "
            + (f"tables that have it: {', '.join(others)}" if others else "no table in data/energy has it")
        )
    lengths, values = rows["vector_length"].fillna(1).to_numpy(), rows[column].to_numpy()  # empty: any length
    if len(rows) > 1 and rows["how"].eq("synthesised").all():
        k = np.clip(
            np.searchsorted(lengths, vector_length), 1, len(rows) - 1
        )  # the two points around it, or at the end
        x = 1 / lengths[k - 1 : k + 1]
        share = (1 / vector_length - x[0]) / (x[1] - x[0])
        return float(values[k - 1] + share * (values[k] - values[k - 1]))
    return float(np.interp(np.log2(vector_length), np.log2(lengths), values))


def _class(operand: str) -> str:
    """``fixed`` for ``fixed8``; other operands are their own class."""
    return "fixed" if operand.startswith("fixed") else operand


def table_names() -> list[str]:
    """The energy tables of ``data/energy``: those CSV files that begin with an activation."""
    return sorted(path.stem for path in paths.ENERGY.glob("*.csv") if _is_table(path))


def _is_table(path: Path) -> bool:
    with open(path) as file:
        return file.read(11) == "activation,"


def load_table(name: str) -> Table:
    """An energy table by name.

    Raises:
        UserError: there is none of that name, or it is damaged: then with the line and what is wrong with it.
    """
    if name not in table_names():
        raise UserError(f"energy table {name!r} is unknown; use one of {', '.join(table_names())}")
    path = paths.ENERGY / f"{name}.csv"
    return _load_table(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _load_table(path: Path, changed: int) -> Table:  # a table that was edited is read anew
    rows = read_rows(path, COLUMNS)
    for column in ("activation", "weight"):
        _refuse(path, rows, ~rows[column].astype(str).str.fullmatch(OPERAND), f"{column} is not an operand")
    lengths = rows["vector_length"] = pd.to_numeric(rows["vector_length"], errors="coerce")
    several = rows.groupby(["activation", "weight"])["weight"].transform("size") > 1
    _refuse(path, rows, rows.duplicated(["activation", "weight", "vector_length"]), "the pair was given before")
    _refuse(path, rows, (lengths.isna() & several) | (lengths < 1), "vector_length is missing or not possible")
    return Table(path.stem, rows)


def read_rows(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table whose every row has an energy between its bounds, says how it was obtained, and from what source."""
    rows = pd.read_csv(path)
    if list(rows.columns)[: len(columns)] != columns:  # more may follow
        raise UserError(f"{path} has the columns {', '.join(rows.columns)}; it needs {', '.join(columns)}")
    energy, low, high = [column for column in columns if column.endswith(("_fj", "_pj"))]
    numbers = rows[[energy, low, high]].apply(pd.to_numeric, errors="coerce")
    wrong = ~((numbers[low] > 0) & (numbers[low] <= numbers[energy]) & (numbers[energy] <= numbers[high]))
    _refuse(path, rows, wrong, f"0 < {low} <= {energy} <= {high} does not hold")
    _refuse(path, rows, ~rows["how"].isin(HOW), f"how is not one of {', '.join(HOW)}")
    _refuse(path, rows, rows["source"].isna(), "source is missing")
    return rows


def _refuse(path: Path, rows: pd.DataFrame, wrong: pd.Series, what: str) -> None:
    if wrong.any():
        row = rows.index[wrong.to_numpy()][0]
        start = ", ".join(map(str, rows.loc[row].iloc[:3]))
        raise UserError(f"{path} line {row + 2} ({start}): {what}; mend it, or restore it with git checkout")
