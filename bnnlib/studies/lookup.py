"""Studies, protocols and runs by name, and the family of a network."""

from bnnlib.errors import UserError
from bnnlib.specs import ModelSpec, RunSpec
from bnnlib.studies.definitions import STUDIES
from bnnlib.studies.study import Protocol, Study


def family(model: ModelSpec) -> str:
    """The family in the legend of the paper's result figure that a network belongs to, by its operands and width.

    It is the first that fits: ``float``, ``ternary`` (any operand), ``first/last`` (8-bit weights at an end, all else
    binary), ``fixed``, ``width`` (wider than 1), ``binary``.
    """
    codes = set(model.weights + model.acts)
    if codes == {"f"}:
        return "float"
    if "t" in codes:
        return "ternary"
    if codes == {"b"}:
        return "width" if model.width > 1 else "binary"
    inner = set(model.weights[1:-1] + model.acts)
    ends = {model.weights[0], model.weights[-1]}
    return "first/last" if inner == {"b"} and ends <= {"b", "8"} else "fixed"


def get_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: there is none.
    """
    if name not in STUDIES:
        raise UserError(f"study {name!r} is unknown; use one of {', '.join(STUDIES)}")
    return STUDIES[name]


def get_protocol(study: str, protocol: str) -> Protocol:
    """The protocol of that name of a study.

    Raises:
        UserError: the study, or its protocol, is unknown.
    """
    of_study = get_study(study).protocols
    if protocol not in of_study:
        raise UserError(f"protocol {protocol!r} is unknown; {study} has {', '.join(of_study)}")
    return of_study[protocol]


def runs(study: str, name: str | None = None, protocol: str | None = None, seed: int | None = None) -> list[RunSpec]:
    """The runs of a study, protocol by protocol, optionally those of one network, protocol or seed.

    Args:
        study: its name.
        name: a network (``L1T``) or a run (``L1T-short``).

    Raises:
        UserError: study, network or protocol is unknown, or nothing fits.
    """
    chosen = get_study(study)
    if protocol is not None:
        get_protocol(study, protocol)
    found = [
        run
        for p, definition in chosen.protocols.items()
        if protocol in (None, p)
        for network, model in chosen.networks.items()
        if name in (None, network, f"{network}-{p}")
        for run in definition.runs(study, p, network, model, chosen.changed(network, p))
        if seed in (None, run.seed)
    ]
    if not found:
        raise UserError(
            f"{study} has no run of name {name!r}, protocol {protocol!r}, seed {seed!r}; see `bnn runs --study {study}`"
        )
    return found
