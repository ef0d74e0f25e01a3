"""The decisions of training, one at a time: each network of a tuning study against the all-binary one."""

import pandas as pd

from bnnlib import studies
from bnnlib.analysis.intervals import ACCURACIES, against, by_network, spread
from bnnlib.energy import Table, energy_uj
from bnnlib.errors import UserError
from bnnlib.studies import Method, results


def decisions(study: str = "tuning-mnist", protocol: str = "short", table: Table | str = "icmla2020") -> pd.DataFrame:
    """Every network of a tuning study against the all-binary network it differs from in one decision.

    Returns:
        A row per network of the study, trained or not: its ``decision``, the columns of ``against`` for the validation
        images, ``validation`` and ``test`` as ``spread`` writes them, ``extra_uj`` (energy above the baseline's) and
        ``command``, which makes it. The first row, ``binary``, is the baseline; then decision
        by decision, in the order of the study's ``methods``.

    Raises:
        UserError: the study has no baseline, or the baseline no result.
    """
    tuning = [name for name, one in studies.STUDIES.items() if one.homes and "binary" not in one.networks]
    if study not in tuning:
        raise UserError(f"study {study!r} tunes no network; use one of {', '.join(tuning)}")
    chosen = studies.STUDIES[study]
    base = studies.runs(chosen.homes["binary"], "binary", protocol)[0]
    models = {run.network: run.model for run in studies.runs(study, protocol=protocol)}
    own, capacity = (results.load_results(name, protocol) for name in (study, base.study))
    seeds = {
        accuracy: {"binary": by_network(capacity, accuracy).get("binary", ())} | by_network(own, accuracy)
        for accuracy in ACCURACIES
    }
    if not seeds["validation"]["binary"]:
        raise UserError(f"{base.study} has no result of {base.name}; make one: {results.train_command(base)}")
    networks = ["binary", *models]
    rows = against({name: seeds["validation"].get(name, ()) for name in networks}, seeds["validation"]["binary"])
    rows.loc["binary", ["gain", "low", "high", "verdict"]] = [float("nan")] * 3 + ["baseline"]
    rows.insert(0, "decision", ["", *(chosen.method(name).changes for name in models)])
    for accuracy, values in seeds.items():
        rows[accuracy] = [spread(values.get(name, ())) for name in networks]
    rows["extra_uj"] = [
        energy_uj(model, table) - energy_uj(base.model, table) for model in [base.model, *models.values()]
    ]
    rows["command"] = [f"bnn train {base.study if n == 'binary' else study} --name {n}-{protocol}" for n in networks]
    order = ["", *dict.fromkeys(method.changes for method in chosen.methods.values()), Method().changes]
    return rows.sort_values("decision", key=lambda column: column.map(order.index), kind="stable")
