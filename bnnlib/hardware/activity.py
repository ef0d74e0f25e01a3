"""How busy the operands are: energy over the shares of zeros and of changing operands, and both measured in a network.

An operand that is *fresh* with probability f is drawn anew in a cycle, else it stays. Measured, f is the share of
values that differ from the one before, over the share that would if they were drawn independently of it. "Before" is
the dot product one output further left in a convolution, and the image before in a fully connected layer; weights are
held while activations pass.
"""

import datetime
import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor, nn
from tqdm import tqdm

from bnnlib import paths
from bnnlib.energy.profiling import profile
from bnnlib.energy.recording import Recorder
from bnnlib.errors import UserError
from bnnlib.hardware import netlist, power, simulate, synthesis
from bnnlib.hardware.cells import Library
from bnnlib.hardware.characterize import parse_pairs
from bnnlib.hardware.verilog import Unit
from bnnlib.nn.layers import eval_mode

PAIRS, LENGTH = "bxb,txb,bxt,txt,2x2,4x4,8x8,8xb,8xt,bx8,tx8", 64
CYCLES, STREAMS = 18, 128
ZEROS, FRESH, HELD = (0.0, 1 / 3, 0.5, 0.75, 0.9, 0.95), (0.0, 0.1, 0.25, 0.5, 1.0), (0.0, 1.0)
DEFAULT = {"zeros_act": 1 / 3, "zeros_weight": 1 / 3, "fresh_act": 1.0, "fresh_weight": 1.0}
COLUMNS = [
    "library", "activation", "weight", "vector_length", *DEFAULT, "energy_fj", "low_fj", "high_fj", "how", "source",
    "date", "command",
]  # fmt: skip
MEASURED = ["zeros_act", "zeros_weight", "fresh_act"]


def table(library: Library, command: str) -> pd.DataFrame:
    """fJ per MAC over the grid of ZEROS (of ternary operands), FRESH (activations) and HELD (weights)."""
    rows = []
    for act, weight in tqdm(parse_pairs(PAIRS), unit="pair", disable=None):
        unit = Unit(act, weight, LENGTH)
        mapped = netlist.from_json(synthesis.synthesise(unit, library), library)
        times = power.timing(mapped)
        zeros = [ZEROS if operand.name == "ternary" else (1 / 3,) for operand in (act, weight)]
        for za, zw, fa, fw in itertools.product(*zeros, FRESH, HELD):
            given = simulate.stimulus(unit, CYCLES, STREAMS, 0, (za, zw), (fa, fw))
            e = float(f"{power.energy(mapped, simulate.run(unit, mapped, given), times).total / LENGTH:.5g}")
            rows.append([
                library.name, act.name, weight.name, LENGTH, round(za, 4), round(zw, 4), fa, fw, e, e, e, "synthesised",
                f"{library.name} (sha256 {library.sha256[:12]}); {synthesis.version()}",
                datetime.date.today().isoformat(), command,
            ])  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _grid(library: str, act: str, weight: str) -> RegularGridInterpolator:
    path = paths.ENERGY / "activity.csv"
    return _read_grid(library, act, weight, path, path.stat().st_mtime_ns)


@lru_cache
def _read_grid(library: str, act: str, weight: str, path: Path, changed: int) -> RegularGridInterpolator:
    rows = pd.read_csv(path)
    own = rows[rows["library"] == library]
    if own.empty:
        known = ", ".join(rows["library"].unique())
        raise UserError(
            f"{path.name} has no rows of table {library}, only of {known}; bnn hardware activity --library {library} "
            "makes them"
        )
    known = ", ".join(sorted({f"{a} x {w}" for a, w in zip(own["activation"], own["weight"], strict=True)}))
    own = own[(own["activation"] == act) & (own["weight"] == weight)]
    if own.empty:
        raise UserError(f"{path.name} has no rows of activation {act} x weight {weight}; it has {known}")
    axes = {name: np.sort(own[name].unique()) for name in DEFAULT}
    energy = own.sort_values(list(DEFAULT))["energy_fj"].to_numpy().reshape([len(axis) for axis in axes.values()])
    used = {name: axis for name, axis in axes.items() if len(axis) > 1}
    grid = RegularGridInterpolator(list(used.values()), energy.squeeze())
    grid.names = list(used)
    return grid


def factor(library: str, act: str, weight: str, **activity: float) -> float:
    """Energy of a MAC at some activity over that of the table's (see DEFAULT), from ``data/energy/activity.csv``.

    Args:
        library: a cell library, which is the name of its table too.
        activity: ``zeros_act``, ``zeros_weight``, ``fresh_act``, ``fresh_weight``; what is not given is the tables'.

    Raises:
        UserError: the library or the pair was not characterised.
    """
    grid = _grid(library, act, weight)
    bounds = dict(zip(grid.names, grid.grid, strict=True))

    def at(values: dict[str, float]) -> float:
        return float(grid([np.clip(values[name], axis[0], axis[-1]) for name, axis in bounds.items()])[0])

    return at(DEFAULT | activity) / at(DEFAULT)


def factors(rows: pd.DataFrame, library: str) -> np.ndarray:
    """The factor of each row of a profile that ``measure`` made; weights are held.

    Raises:
        UserError: the rows have no measured activity, or the library or a pair was not characterised.
    """
    if not set(MEASURED) <= set(rows.columns):
        raise UserError("the profile has no measured activity; make it with hardware.activity.measure(model, images)")
    return np.array([
        factor(library, row.act, row.weight, fresh_weight=0.0, **{name: getattr(row, name) for name in MEASURED})
        for row in rows.itertuples()
    ])  # fmt: skip


def measure(model: nn.Module, images: Tensor) -> pd.DataFrame:
    """The profile of a network with its operands' statistics on real images.

    Args:
        images: uint8 [N, C, H, W], at least two.

    Returns:
        ``profile``'s rows with ``zeros_act`` and ``zeros_weight``, shares of zeros, and ``fresh_act``, see above.
    """
    if len(images) < 2:
        raise UserError(f"{len(images)} images say nothing of what changes between them; use at least 2")
    with eval_mode(model), _Statistics(model) as recorder, torch.no_grad():
        model(images.to(next(iter(model.parameters())).device))
    return profile(model).join(pd.DataFrame(recorder.statistics, columns=MEASURED))


class _Statistics(Recorder):
    """Notes zeros and changes of the operands of every product."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.statistics: list[tuple[float, float, float]] = []

    def _note_product(self, x: Tensor, w: Tensor, y: Tensor) -> None:
        super()._note_product(x, w, y)
        before, after = (x[:-1], x[1:]) if x.ndim == 2 else (x[..., :-1], x[..., 1:])
        shares = x.unique(return_counts=True)[1] / x.numel()
        independent = 1 - float((shares**2).sum())
        fresh = float((before != after).float().mean()) / independent if independent else 0.0
        self.statistics.append((float((x == 0).float().mean()), float((w == 0).float().mean()), min(fresh, 1.0)))
