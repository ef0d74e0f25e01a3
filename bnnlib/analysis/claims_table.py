"""``data/claims.csv``: the paper's claims, read and checked. ``data/README.md`` says what its columns mean."""

import math
from functools import lru_cache
from pathlib import Path

import pandas as pd

from bnnlib import paths, studies
from bnnlib.energy import HOW, energy_uj
from bnnlib.errors import UserError
from bnnlib.specs import ModelSpec

COLUMNS = [
    "id", "dataset", "group", "claim", "point", "own", "kind", "network", "protocol", "paper_value", "unit",
    "reading_error", "reading_why", "not_comparable", "how", "source", "note",
]  # fmt: skip
STUDIES = {"mnist": ("lenet-mnist", "comparators-mnist"), "cifar10": ("vggnet-cifar10", "comparators-cifar10")}
KINDS = ("energy", "ratio", "accuracy", "gap", "rank", "curve")
OF_ENERGY = ("energy", "ratio")  # what needs no training
OPERATORS = {"gap": " - ", "ratio": " / "}


def read(path: Path | None = None) -> pd.DataFrame:
    """The table of claims, checked; texts as they stand, ``""`` for an empty cell.

    Raises:
        UserError: the table is damaged: line, claim and what is wrong with it.
    """
    path = path or paths.DATA / "claims.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(rows.columns) != COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(rows.columns)}; it needs {', '.join(COLUMNS)}")
    for line, row in enumerate(rows.to_dict("records"), 2):
        wrong = _wrong(row) or ("the id was given before" if (rows["id"][: line - 2] == row["id"]).any() else None)
        if wrong:
            raise UserError(f"{path} line {line} ({row['id']}): {wrong}; mend it, or restore it with git checkout")
    return rows


def _wrong(row: dict) -> str | None:
    """What is wrong with a row of the table, or None."""
    for column in ("id", "group", "claim", "unit", "reading_why", "source"):
        if not row[column].strip():
            return f"{column} is missing"
    for column, words in (("kind", KINDS), ("dataset", STUDIES), ("how", HOW)):
        if row[column] not in words:
            return f"{column} {row[column]!r} is not one of {', '.join(words)}"
    if row["own"] not in (("yes", "no") if row["point"] else ("",)):
        return f"own {row['own']!r} is not yes or no for a point of the figure, and empty for another claim"
    try:
        numbers = [float(row[column]) for column in ("reading_error", "paper_value")[: 1 + (row["kind"] != "rank")]]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number < math.inf for number in numbers):
        return "paper_value or reading_error is not a number of at least 0"
    networks, known = networks_of(row["dataset"]), OPERATORS.get(row["kind"], " / ")
    for candidate in [] if row["kind"] == "rank" else row["network"].split(" or "):
        parts = candidate.split(known)
        unknown = [name for name in parts if name not in networks]
        if unknown or len(parts) != 1 + (row["kind"] in OPERATORS):
            return (
                f"network {candidate!r} is not what a claim of kind {row['kind']} needs; known: {', '.join(networks)}"
            )
    if row["kind"] not in OF_ENERGY:
        protocols = {p: d for s in STUDIES[row["dataset"]] for p, d in studies.STUDIES[s].protocols.items()}
        if row["protocol"] not in protocols or protocols[row["protocol"]].width != 1:
            return f"protocol {row['protocol']!r} is not one of the studies at full size"
    return None


def networks_of(dataset: str) -> dict[str, ModelSpec]:
    """The networks of the studies that answer the claims of a data set, by name."""
    return {name: spec for study in STUDIES[dataset] for name, spec in studies.STUDIES[study].networks.items()}


@lru_cache(maxsize=128)  # the table's content has its place in the key, for it may be edited
def _cached_uj(spec: ModelSpec, changed: int) -> float:
    return energy_uj(spec)


def network_uj(dataset: str, network: str) -> float:
    """Microjoules per classification of a network of this data set's studies, table ``icmla2020``."""
    return _cached_uj(networks_of(dataset)[network], (paths.ENERGY / "icmla2020.csv").stat().st_mtime_ns)
