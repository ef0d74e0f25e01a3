"""Which methods of training are real on these networks? Each against the same baseline, seed by seed.

A seed is the same initial weights and the same order of the images on both sides, so that differences are taken within
a seed, and their interval is Student's of those differences.
"""

from pathlib import Path

import pandas as pd

from bnnlib import studies
from bnnlib.analysis.intervals import ACCURACIES, NOT_RUN, paired, spread, verdict
from bnnlib.errors import UserError
from bnnlib.studies import results


def by_seed(study: str, protocol: str, accuracy: str) -> dict[str, dict[int, float]]:
    """Accuracies in percent of what was trained, by network and seed."""
    rows = results.load_results(study, protocol)
    column = ACCURACIES[accuracy]
    return {
        network: dict(zip(group["seed"], group[column], strict=True))
        for network, group in rows.groupby("network", sort=False)
    }


def homes_of(study: str, protocol: str) -> dict[str, str]:
    """The study that has the results of each network of a ladder."""
    chosen = studies.get_study(study)
    planned = studies.get_protocol(study, protocol).planned_seeds(chosen.networks)
    return {name: study if seeds else chosen.homes[name] for name, seeds in planned.items()}


def studies_of_methods() -> list[str]:
    """The studies of which there is a ladder: they compare methods with ``binary``, seed by seed."""
    return [name for name, one in studies.STUDIES.items() if one.homes and "binary" in one.networks]


def ladder(study: str, protocol: str = "short", confidence: float = 0.95) -> pd.DataFrame:
    """Every method of a study alone against ``binary`` under the same protocol.

    Returns:
        One row per method: ``changes``, ``source``, ``n`` pairs of seeds, ``gain`` in points of validation accuracy
        with ``low`` and ``high``, ``verdict``, ``test gain``, ``validation`` and ``test`` as ``spread`` writes them,
        and ``command``. The best gain is first, what was not run last.

    Raises:
        UserError: the study has no such ladder or protocol, or the baseline no result.
    """
    if study not in studies_of_methods():
        raise UserError(f"study {study!r} has no ladder of methods; use one of {', '.join(studies_of_methods())}")
    described = studies.get_study(study)
    homes = homes_of(study, protocol)
    of = {(home, acc): by_seed(home, protocol, acc) for home in set(homes.values()) for acc in ACCURACIES}
    base = {accuracy: of[homes["binary"], accuracy].get("binary", {}) for accuracy in ACCURACIES}
    if not base["validation"]:
        home = homes["binary"]
        raise UserError(
            f"{home} has no result of binary-{protocol}; make one: bnn train {home} --name binary-{protocol}"
        )
    rows = {}
    for name in sorted(set(homes) - {"binary"}, key=[*described.methods, *homes].index):
        own = {accuracy: of[homes[name], accuracy].get(name, {}) for accuracy in ACCURACIES}
        n, *gain = paired(own["validation"], base["validation"], confidence)
        rows[name] = [
            *described.method(name), n, *gain, verdict(*gain) if n else NOT_RUN,
            paired(own["test"], base["test"])[1], *(spread(list(v.values())) for v in own.values()),
            f"bnn train {homes[name]} --name {name}-{protocol}",
        ]  # fmt: skip
    columns = ["changes", "source", "n", "gain", "low", "high", "verdict", "test gain", *ACCURACIES, "command"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).sort_values(
        "gain", ascending=False, kind="stable"
    )


def files(study: str, protocol: str = "short") -> list[Path]:
    """The result files that ``ladder`` is made from."""
    own = results.result_files(study, protocol)
    for name, home in homes_of(study, protocol).items():
        if home != study:
            own += [f for f in results.result_files(home, protocol) if f.name.startswith(f"{name}-{protocol}-")]
    return own
