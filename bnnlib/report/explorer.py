"""What the explorer's page knows: layers, energy tables, networks by name, and accuracies, as one JSON object.

The page computes with ``static/explorer.js``, which does what ``bnnlib.energy`` does; tests hold the two together.
"""

import json
from pathlib import Path

import pandas as pd

from bnnlib import paths, studies
from bnnlib.analysis.recommendation import STUDY
from bnnlib.energy import Table, load_table, profile, table_names
from bnnlib.operands import OPERANDS
from bnnlib.specs import ARCHS, ModelSpec
from bnnlib.studies import results

WIDTHS = (0.125, 0.25, 0.5, 1, 2, 4, 8)
PROTOCOLS = {
    "short": "short, full size",
    "sitting": "sitting, full size, 16 epochs",
    "reduced": "reduced: 1/8 of the width, 5 epochs",
    "paper20": "the first 20 epochs of the paper's protocol",
    "paper": "the paper's protocol",
}


def script() -> str:
    """The data as JavaScript that a page can load from a file, which it could not fetch."""
    return f"window.bnnData = {json.dumps(collect(), separators=(',', ':'))};\n"


def page() -> str:
    """The explorer as a page of the report, in Markdown."""
    body = (Path(__file__).parent / "static" / "explorer.html").read_text()
    scripts = "".join(f'<script src="_static/{name}.js"></script>\n' for name in ("explorer-data", "explorer"))
    return f"# Energy explorer\n\n```{{raw}} html\n{body}{scripts}```\n"


def collect() -> dict:
    """Everything, by network that has a capacity study (``lenet5``, ``vggnet7``) and by energy table."""
    return {
        "operands": OPERANDS,
        "networks": {arch: _network(arch) for arch in STUDY},
        "tables": {name: _table(load_table(name)) for name in table_names()},
    }


def _network(arch: str) -> dict:
    study = studies.STUDIES[STUDY[arch]]
    return {
        "dataset": STUDY[arch].partition("-")[2],
        "layers": {str(width): _layers(arch, width) for width in WIDTHS},
        "presets": [_spec(name, spec) for name, spec in study.networks.items()],
        "points": [*_measured(arch), _paper(arch)],
    }


def _layers(arch: str, width: float) -> list[dict]:
    count = len(ARCHS[arch].layers)
    rows = profile(ModelSpec(arch, "b" * count, "b" * (count - 1), width))
    return [
        {"name": row.name, "macs": row.macs, "vector": row.vector_length, "image": row.act if not i else None}
        for i, row in enumerate(rows.itertuples())
    ]


def _spec(name: str, spec: ModelSpec) -> dict:
    return {"name": name, "weights": spec.weights, "acts": spec.acts, "width": spec.width}


def _table(table: Table) -> list[dict]:
    """The rows of each pair as ``Table.cost`` looks them up."""
    return [
        {
            "act": act,
            "weight": weight,
            "lengths": rows["vector_length"].fillna(1).tolist(),
            "energies": rows["energy_fj"].tolist(),
            "synthesised": len(rows) > 1 and bool(rows["how"].eq("synthesised").all()),
        }
        for (act, weight), rows in table.pairs.items()
    ]


def _measured(arch: str) -> list[dict]:
    """A set of points for each protocol that has results."""
    study, sets = STUDY[arch], []
    for protocol in studies.STUDIES[study].protocols:
        found = results.load_results(study, protocol)
        if found.empty:
            continue
        models = {run.network: run.model for run in studies.runs(study, protocol=protocol)}
        points = [
            _spec(row.network, models[row.network])
            | {"accuracy": row.test_mean, "sd": None if pd.isna(row.test_std) else row.test_std, "n": int(row.n)}
            for row in results.summary(found).itertuples()
        ]
        sets.append({"name": f"measured here ({PROTOCOLS[protocol]})", "ours": True, "points": points})
    return sets


def _paper(arch: str) -> dict:
    """The paper's own points, whose networks are known."""
    rows = pd.read_csv(paths.DATA / "paper_pareto_points.csv", dtype={"weights": str, "acts": str})
    rows = rows[(rows["arch"] == arch) & rows["own"].eq("yes")]
    points = [
        {"name": row.variant, "weights": row.weights, "acts": row.acts, "width": row.width}
        | {"accuracy": row.accuracy_percent, "sd": None, "n": None}
        for row in rows.itertuples()
    ]
    return {"name": "the paper's figure (read off)", "ours": False, "points": points}
