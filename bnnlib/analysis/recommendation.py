"""The recipe on committed results: which network for so many microjoules, why, and the commands to get it.

``recipe.walk`` decides; this file gives it what was measured and says what came out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

from bnnlib import studies
from bnnlib.analysis.intervals import spread
from bnnlib.analysis.recipe import OVER, START, Measured, Step, joint, walk
from bnnlib.energy import energy_uj
from bnnlib.errors import UserError
from bnnlib.studies import results

STUDY = {"lenet5": "lenet-mnist", "vggnet7": "vggnet-cifar10"}


def measured(study: str, protocol: str = "short", table: str = "icmla2020") -> dict[str, Measured]:
    """The networks of a study that have results, but for the float one, which is no step of a binary network.

    Raises:
        UserError: study, protocol or table is unknown, or the binary network has no result; names the command.
    """
    runs = studies.runs(study, protocol=protocol)
    models = {run.network: run.model for run in runs}
    if START not in models:
        raise UserError(f"study {study} has no network {START!r} to start from; use one of {', '.join(STUDY.values())}")
    rows = results.load_results(study, protocol)
    found = {
        name: Measured(model, energy_uj(model, table), tuple(own["val_accuracy"]), tuple(own["test_accuracy"]))
        for name, model in models.items()
        if set(model.weights + model.acts) != {"f"} and len(own := rows[rows["network"] == name])
    }
    if START not in found:
        what = f"no result of {START}-{protocol}" if len(rows) else f"no result of protocol {protocol!r}"
        only = f"--name {START}-{protocol}" if len(rows) else f"--protocol {protocol}"
        raise UserError(f"{study} has {what}; make it: bnn train {study} {only}{_others(study, protocol)}")
    return found


def _others(study: str, protocol: str) -> str:
    """The protocols that have results, for an error."""
    others = [
        f"; --protocol {name} has results" + (" of reduced networks" if one.width < 1 else "")
        for name, one in studies.get_study(study).protocols.items()
        if name != protocol and any(path.name.startswith(f"{START}-") for path in results.result_files(study, name))
    ]
    return "".join(others)


@dataclass(frozen=True)
class Recommendation:
    """The network for a budget, and the steps that lead to it."""

    arch: str
    study: str
    protocol: str
    table: str
    budget_uj: float
    by: str
    confidence: float
    together: bool
    networks: dict[str, Measured]
    steps: list[Step]

    @property
    def network(self) -> str:
        return self.steps[-1].current

    @property
    def label(self) -> str:
        """``reduced`` if the protocol makes all networks narrower, else ``full size``."""
        return "reduced" if studies.get_study(self.study).protocols[self.protocol].width < 1 else "full size"

    @property
    def beyond(self) -> str | None:
        """The best step from the recommended network that only the budget forbids, if there is one."""
        rows = self.steps[-1].candidates
        dear = rows[(rows["verdict"] == OVER) & (rows["low"] > 0)].sort_values("points_per_uj", ascending=False)
        return dear.index[0] if len(dear) else None

    @property
    def stop(self) -> str:
        """Why the walk ended."""
        fits = (self.steps[-1].candidates["verdict"] != OVER).any()
        if not fits:
            return f"no measured network that costs more than {self.network} fits the budget"
        return f"of what fits the budget, nothing undominated is shown to gain over {self.network}"

    def commands(self, name: str) -> dict[str, str]:
        """The ``bnn`` commands that cost and train a network."""
        model = self.networks[name].model
        wider = f" --width {model.width:g}" if model.width != 1 else ""
        other = f" --table {self.table}" if self.table != "icmla2020" else ""
        return {
            "cost": f"bnn cost {model.arch} --weights {model.weights} --acts {model.acts}{wider}{other}",
            "train": f"bnn train {self.study} --name {name}-{self.protocol}",
        }

    def describe(self, name: str) -> dict:
        """One network: codes, energy, accuracies."""
        one = self.networks[name]
        means = {f"{a}_mean": fmean(getattr(one, a)) for a in ("validation", "test")}
        sds = {f"{a}_sd": stdev(v) if len(v := getattr(one, a)) > 1 else None for a in ("validation", "test")}
        codes = {"weights": one.model.weights, "acts": one.model.acts, "width": one.model.width}
        return {"network": name} | codes | {"energy_uj": one.energy_uj, "n": len(one.test)} | means | sds

    def as_dict(self) -> dict:
        """JSON-ready; what is not known is None."""
        tables = [step.candidates.rename_axis("network").reset_index() for step in self.steps]
        steps = [
            {
                "from": s.current,
                "to": s.chosen,
                "candidates": json.loads(t.to_json(orient="records", double_precision=10)),
            }
            for s, t in zip(self.steps, tables, strict=True)
        ]
        own = ("arch", "study", "protocol", "label", "table", "budget_uj", "by", "confidence", "together")
        return {name: getattr(self, name) for name in own} | {
            "steps": steps,
            "stop": self.stop,
            "beyond_budget": self.beyond,
            "recommended": self.describe(self.network) | {"commands": self.commands(self.network)},
        }


def recommend(
    arch: str, budget_uj: float, study: str | None = None, protocol: str = "short", table: str = "icmla2020",
    by: str = "validation", confidence: float = 0.95, together: bool = False,
) -> Recommendation:  # fmt: skip
    """The network for a budget from the committed results; see ``recipe.walk`` for what the arguments mean.

    Raises:
        UserError: a name is unknown, there are no results, or the budget is too small.
    """
    if arch not in STUDY:
        raise UserError(f"arch {arch!r} is unknown; use one of {', '.join(STUDY)}")
    study = study or STUDY[arch]
    networks = measured(study, protocol, table)
    if networks[START].model.arch != arch:
        raise UserError(f"study {study} is of {networks[START].model.arch}, not of {arch}; leave out --study")
    steps = walk(networks, budget_uj, by, confidence, together)
    return Recommendation(arch, study, protocol, table, budget_uj, by, confidence, together, networks, steps)


def report(found: Recommendation) -> Iterator[str]:
    """The lines of ``bnn recommend``: what was measured, each step with all that it was chosen from, the outcome."""
    yield (
        f"{found.arch}, {found.label}, study {found.study}, protocol {found.protocol}: "
        f"budget {found.budget_uj:g} uJ per classification, table {found.table}"
    )
    if found.label == "reduced":
        factor = studies.get_study(found.study).protocols[found.protocol].width
        yield f"REDUCED: all networks at {factor:g} of their width; says nothing of accuracy or energy at full size"
    yield "accuracy in %: mean ± standard deviation (seeds)"
    yield ""
    yield f"{'network':9}{'weights':11}{'acts':10}{'width':>6}{'uJ':>9}   {'validation':19}test"
    for name, one in sorted(found.networks.items(), key=lambda item: item[1].energy_uj):
        codes = f"{name:9}{one.model.weights:11}{one.model.acts:10}{one.model.width:6g}{one.energy_uj:9.4f}"
        yield f"{codes}   {spread(one.validation):19}{spread(one.test)}"
    level = joint(found.networks, found.confidence) if found.together else found.confidence
    kind = f"{found.confidence:.4g} for all at once, {level:.4f} each" if found.together else f"{level:.4g} for each"
    for number, step in enumerate(found.steps, 1):
        yield ""
        yield f"step {number}: gains over {step.current} in points of {found.by} accuracy, Welch intervals, {kind}"
        if len(step.candidates):
            yield f"{'network':9}{'more nJ':>9}{'gain':>8}   {'interval':17}{'points/uJ':>11}   verdict"
        for name, row in step.candidates.iterrows():
            ends = f"[{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] == row["low"] else "-"
            numbers = (
                f"{name:9}{1000 * row['extra_uj']:9.2f}{row['gain']:+8.3f}   {ends:17}{row['points_per_uj']:11.1f}"
            )
            yield f"{numbers}   {row['verdict']}"
        yield f"-> {step.chosen}" if step.chosen else f"-> stop: {found.stop}"
    one = found.networks[found.network]
    yield ""
    yield f"recommended: {found.network}, {found.label}, {one.energy_uj:.4f} uJ, test {spread(one.test)} %"
    if found.beyond:
        dear = found.networks[found.beyond].energy_uj
        yield f"next above the budget: {found.beyond}, {dear:.4f} uJ"
    if not found.together:
        yield "with many networks compared, some pass by chance: --together asks the confidence of all at once"
    yield from (f"  {command}" for command in found.commands(found.network).values())
