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

# where the results of a network are that a study has no seeds of
HOMES = {
    "beyond-mnist": {"binary": "lenet-mnist", "bireal": "tuning-mnist"},
    "beyond-cifar10": {"binary": "vggnet-cifar10", "bireal": "tuning-cifar10"},
}
# what a method changes, and where it is from
METHODS = {
    "bireal": ("estimator", "ApproxSign of Bi-Real Net, arXiv 1808.00278"),
    "ede": ("estimator, annealed", "EDE of IR-Net, arXiv 1909.10788"),
    "reste": ("estimator, annealed", "ReSTE, arXiv 2308.06689"),
    "balance": ("latent weights", "IR-Net, arXiv 1909.10788"),
    "bop": ("latent weights", "Bop, arXiv 1906.02107"),
    "average": ("latent weights", "averaging, arXiv 1803.05407"),
    "distill": ("loss", "distillation, arXiv 1503.02531"),
    "smooth": ("loss", "label smoothing, arXiv 1512.00567"),
    "logit-scale": ("loss", "sharper outputs"),
    "acts-first": ("stages", "activations before weights, arXiv 1904.05868"),
    "bits": ("stages", "widths in steps, arXiv 1711.00205"),
    "linear": ("schedule", "linear decay"),
    "gradients-8": ("gradients", "of 8 bits (DoReFa-Net, arXiv 1606.06160)"),
    "gradients-6": ("gradients", "of 6 bits"),
    "gradients-4": ("gradients", "of 4 bits"),
    "affine": ("images", "turned and scaled"),
    "alt-flip-crop": ("images", "alternating flip, arXiv 2404.00498"),
    "cutout": ("images", "cutout, arXiv 1708.04552"),
}


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
    planned = studies.get_protocol(study, protocol).planned_seeds(studies.get_study(study).networks)
    return {name: study if seeds else HOMES[study][name] for name, seeds in planned.items()}


def ladder(study: str, protocol: str = "short", confidence: float = 0.95) -> pd.DataFrame:
    """Every method of a study alone against ``binary`` under the same protocol.

    Returns:
        A row a method: ``changes``, ``source``, ``n`` pairs of seeds, ``gain`` in points of validation accuracy with
        ``low`` and ``high``, ``verdict``, ``test gain``, ``validation`` and ``test`` as ``spread`` writes them, and
        ``command``. The best gain is first, what was not run last.

    Raises:
        UserError: the study has no such ladder or protocol, or the baseline no result.
    """
    if study not in HOMES:
        raise UserError(f"study {study!r} has no ladder of methods; use one of {', '.join(HOMES)}")
    homes = homes_of(study, protocol)
    of = {(home, acc): by_seed(home, protocol, acc) for home in set(homes.values()) for acc in ACCURACIES}
    base = {accuracy: of[homes["binary"], accuracy].get("binary", {}) for accuracy in ACCURACIES}
    if not base["validation"]:
        home = homes["binary"]
        raise UserError(
            f"{home} has no result of binary-{protocol}; make one: bnn train {home} --name binary-{protocol}"
        )
    rows = {}
    methods = [name for name in METHODS if name in homes]
    methods += [name for name in homes if name not in METHODS and name != "binary"]
    for name in methods:
        own = {accuracy: of[homes[name], accuracy].get(name, {}) for accuracy in ACCURACIES}
        n, *gain = paired(own["validation"], base["validation"], confidence)
        rows[name] = [
            *METHODS.get(name, ("not described", "")), n, *gain, verdict(*gain) if n else NOT_RUN,
            paired(own["test"], base["test"])[1], *(spread(list(v.values())) for v in own.values()),
            f"bnn train {homes[name]} --name {name}-{protocol}",
        ]  # fmt: skip
    columns = ["changes", "source", "n", "gain", "low", "high", "verdict", "test gain", *ACCURACIES, "command"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).sort_values("gain", ascending=False)


def files(study: str, protocol: str = "short") -> list[Path]:
    """The result files that ``ladder`` is made from."""
    own = results.result_files(study, protocol)
    for name, home in homes_of(study, protocol).items():
        if home != study:
            own += [f for f in results.result_files(home, protocol) if f.name.startswith(f"{name}-{protocol}-")]
    return own
