"""One JSON file per run, keyed by the hash of its spec; a study's results as a DataFrame."""

from functools import cache
from pathlib import Path

import pandas as pd

from bnnlib import paths, studies
from bnnlib.energy import energy_uj
from bnnlib.errors import UserError
from bnnlib.files import read_json, write_json
from bnnlib.specs import RunSpec

COLUMNS = [
    "study", "name", "network", "protocol", "seed", "epochs", "best_epoch", "val_accuracy", "test_accuracy",
    "energy_uj", "device", "spec_hash", "path",
]  # fmt: skip


def result_path(run: RunSpec) -> Path:
    """Where the result of a run lives."""
    return paths.results_dir() / run.study / f"{run.name}-s{run.seed}.json"


def train_command(run: RunSpec, options: dict | None = None) -> str:
    """The command that makes a run.

    Args:
        run: the run, whose name says its protocol.
        options: what ``Execution.choose`` took, where somebody chose; None is its default.
    """
    chosen = {name: value for name, value in (options or {}).items() if value is not None}
    device = chosen.pop("device", None)
    words = [f"bnn train {run.study} --name {run.name} --seed {run.seed}"]
    if device is not None:
        words.append(f"--device {device}")
    words += [f"-x {name}={'on' if value else 'off'}" for name, value in chosen.items()]
    return " ".join(words)


def write_result(run: RunSpec, result: dict) -> Path:
    """Write the result file of a run."""
    return write_json(result_path(run), result)


def load_result(run: RunSpec) -> dict | None:
    """The result of a run, or None if it has not been made.

    Results that were made before version 0.3 have no ``predictions``, ``command``, ``commit``, ``instructions`` and no
    ``weights_changed`` among their curves.

    Raises:
        UserError: the file is damaged, or was made with another spec.
    """
    path = result_path(run)
    if not path.exists():
        return None
    result = read_json(path)
    missing = {"spec_hash", "spec", "val_accuracy", "test_accuracy", "history", "device", "best_epoch"} - set(result)
    if missing:
        raise UserError(
            f"{path} is damaged (no {', '.join(sorted(missing))}); make it anew: {train_command(run)} --overwrite"
        )
    if result["spec_hash"] != run.hash or result["spec"] != run.as_dict():
        raise UserError(
            f"{path} was made with spec {result['spec_hash']}, the study now says {run.hash}; "
            f"make it anew: {train_command(run)} --overwrite"
        )
    return result


def load_results(study: str, protocol: str | None = None) -> pd.DataFrame:
    """The finished runs of a study, one per row, with the columns ``COLUMNS``; accuracies in percent.

    Energies are those of the table ``icmla2020``, computed from the network as it is now.
    """
    rows, uj = [], cache(energy_uj)
    for run in studies.runs(study, protocol=protocol):
        result = load_result(run)
        if result is not None:
            rows.append(
                {
                    "study": study,
                    "network": run.network,
                    "protocol": run.protocol,
                    "epochs": run.train.epochs,
                    "energy_uj": uj(run.model),
                    "path": result_path(run),
                    **{key: result[key] for key in COLUMNS if key in result},
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def load_history(study: str, name: str) -> pd.DataFrame:
    """The epochs of all finished seeds of a run such as ``binary-short``: ``seed``, ``epoch`` and the curves."""
    frames = []
    for run in studies.runs(study, name=name):
        result = load_result(run)
        if result is not None:
            frame = pd.DataFrame(result["history"])
            frame.insert(0, "epoch", range(1, len(frame) + 1))
            frame.insert(0, "seed", run.seed)
            frames.append(frame)
    if not frames:
        raise UserError(f"{study} has no result of {name}; make one: bnn train {study} --name {name} --seed 0")
    return pd.concat(frames, ignore_index=True)


def result_files(study: str, protocol: str) -> list[Path]:
    """The files of the finished runs, for the provenance of a figure."""
    return [path for run in studies.runs(study, protocol=protocol) if (path := result_path(run)).exists()]


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of seeds of the accuracies, a row per network and protocol."""
    groups = results.groupby(["network", "protocol"], sort=False)
    return groups.agg(
        energy_uj=("energy_uj", "first"),
        val_mean=("val_accuracy", "mean"),
        test_mean=("test_accuracy", "mean"),
        test_std=("test_accuracy", "std"),
        n=("seed", "count"),
    ).reset_index()


def status(study: str | None = None) -> list[dict]:
    """Every run of the studies: ``done``, ``missing`` or ``stale`` (damaged, or of another spec), and its command."""
    rows, uj = [], cache(energy_uj)  # seeds of one network cost the same
    for name in [study] if study else studies.STUDIES:
        for run in studies.runs(name):
            try:
                result = load_result(run)
                state = "done" if result else "missing"
            except UserError:
                result, state = None, "stale"
            rows.append(
                {
                    "study": name,
                    "name": run.name,
                    "network": run.network,
                    "protocol": run.protocol,
                    "seed": run.seed,
                    "status": state,
                    "epochs": run.train.epochs,
                    "val_accuracy": result["val_accuracy"] if result else None,
                    "test_accuracy": result["test_accuracy"] if result else None,
                    "energy_uj": uj(run.model),
                    "device": result["device"] if result else None,
                    "spec_hash": run.hash,
                    "command": train_command(run) + (" --overwrite" if state == "stale" else ""),
                }
            )
    return rows
