"""The judged claims as text: lines for the terminal, and the table of the README, which no hand writes."""

import re
from pathlib import Path

import pandas as pd

from bnnlib import paths
from bnnlib.analysis import claims
from bnnlib.errors import UserError
from bnnlib.files import write_atomic

BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
HEADLINES = (  # the first lines of the README: {id} is what was measured, {id/paper} what the paper says
    "**What single bits save.** LeNet5 on MNIST, all binary, takes {mnist-float-binary-energy} times less energy than "
    "in full precision (paper {mnist-float-binary-energy/paper}), and loses {mnist-gap-released} of accuracy (the "
    "paper's figure says {mnist-gap-figure/paper}, its released checkpoints {mnist-gap-released/paper}).",
    "**Where a little more energy buys most accuracy.** In ternary operands of chosen layers, says the paper. Here, by "
    "points of test accuracy per microjoule: {mnist-ternarization}.",
    "**Against other methods.** {mnist-saving/network}, binary but for ternary weights in the first layer, takes "
    "{mnist-saving} times less energy than TBN (paper {mnist-saving/paper}) and gives up {mnist-saving-accuracy} of "
    "accuracy (paper {mnist-saving-accuracy/paper}).",
)
UNITS = {"accuracy": " %", "curve": " %", "gap": " points", "energy": " µJ"}


def number(value: float | str | None, kind: str, sd: float | None = None, n: float | None = None) -> str:
    """A value of a claim with its unit, for example ``99.28 ± 0.06 % (n = 5)``; ``-`` if there is none.

    Args:
        value: the number, or a text: the word of a ``rank``, a number as the paper has it.
        kind: of the claim.
        sd, n: standard deviation of a seed, and how many seeds, where there are any.
    """
    if value is None or value == "" or value != value:  # the last: not a number
        return "-"
    if isinstance(value, str):  # a number of the paper keeps its digits
        return value + UNITS.get(kind, "")
    digits = {"energy": "#.4g", "ratio": "#.3g"}.get(kind, ".2f")
    text = f"{float(value):{digits}}"
    text += f" ± {sd:.2f}" if pd.notna(sd) else ""
    return text + UNITS.get(kind, "") + (f" (n = {n:.0f})" if pd.notna(n) else "")


def counts(judged: pd.DataFrame) -> str:
    """How many of the claims have which verdict: ``5 hold, 9 miss (9 higher here), 1 not yet run at full size``."""
    parts = []
    several = {claims.HOLDS: "hold", claims.MISSES: "miss"}
    for verdict in (claims.HOLDS, claims.MISSES, claims.UNDECIDED, claims.NOT_COMPARABLE, claims.NOT_RUN):
        rows = judged[judged["verdict"] == verdict]
        if rows.empty:
            continue
        said = f"{len(rows)} {verdict if len(rows) == 1 else several.get(verdict, verdict)}"
        higher, lower = (rows["difference"] > 0).sum(), (rows["difference"] < 0).sum()
        where = [f"{count} {word} here" for count, word in ((higher, "higher"), (lower, "lower")) if count]
        if verdict == claims.MISSES and where:
            said += f" ({', '.join(where)})"
        parts.append(said)
    return ", ".join(parts)


def lines(judged: pd.DataFrame) -> list[str]:
    """A line per claim for the terminal, and last how many hold."""
    said = [f"{'claim':34}{'paper':>20}  {'here':32}verdict"]
    for row in judged.to_dict("records"):
        ours = number(row["ours"], row["kind"], row["sd"], row["n"])
        verdict = f"{row['verdict']}: {row['detail']}" if row["detail"] else row["verdict"]
        said.append(f"{row['id']:34}{number(row['paper_value'], row['kind']):>20}  {ours:32}{verdict}")
    return [*said, f"{len(judged)} claims: {counts(judged)}"]


def readme_table(judged: pd.DataFrame) -> str:
    """The claims as a Markdown table: a row per group; one of more than two claims is counted instead of listed."""
    rows = ["| the paper's claim | here | verdict |", "| --- | --- | --- |"]
    for group, members in judged.groupby("group", sort=False):
        if len(members) > 2:
            rows.append(f"| {group}: {len(members)} points of the figure | {_summary(members)} | {counts(members)} |")
            continue
        cells = zip(*[_cells(row) for row in members.to_dict("records")], strict=True)
        rows.append("| " + " | ".join("<br>".join(dict.fromkeys(cell)) for cell in cells) + " |")
    return "\n".join([*rows, f"| **all {len(judged)}** | | {counts(judged)} |"])


def headlines(judged: pd.DataFrame) -> str:
    """What the README says first, as a Markdown list: the sentences of ``HEADLINES`` with the numbers of the claims."""
    known = {}
    for row in judged.to_dict("records"):
        known[row["id"]] = f"**{_cells(row)[1]}**" if row["kind"] != "rank" else row["detail"]
        known[f"{row['id']}/paper"] = number(row["paper_value"], row["kind"])
        known[f"{row['id']}/network"] = row["measured"].split()[-1] if row["measured"] else "-"
    return "\n".join("- " + re.sub(r"\{(.+?)\}", lambda name: known[name[1]], line) for line in HEADLINES)


def _cells(row: dict) -> tuple[str, str, str]:
    ours = number(row["ours"], row["kind"], row["sd"], row["n"])
    if row["kind"] == "rank" and row["measured"]:
        ours = row["detail"]
    told = row["verdict"] in (claims.MISSES, claims.UNDECIDED) and row["kind"] != "rank"
    return row["claim"], ours, row["verdict"] + (f": {row['detail']}" if told else "")


def _summary(members: pd.DataFrame) -> str:
    """Of a group: the largest deviation of its energies, or the median difference of its accuracies."""
    members = members[members["verdict"].isin([claims.HOLDS, claims.MISSES, claims.UNDECIDED])]
    if members.empty:
        return "-"
    if members["kind"].iloc[0] == "energy":
        off = (members["difference"] / members["paper_value"].astype(float)).abs().max()
        return f"largest deviation {off:.1%}".replace("%", " %")
    return f"{len(members)} compared, median difference {members['difference'].median():+.2f} points"


def update_readme(judged: pd.DataFrame, path: Path | None = None) -> bool:
    """Write the headlines and the table between their marks in the README; says whether anything changed.

    Raises:
        UserError: a mark is not there exactly once, or they are out of order.
    """
    path = path or paths.ROOT / "README.md"
    text = fresh = path.read_text()
    for name, made in (("headlines", headlines(judged)), ("claims", readme_table(judged))):
        begin, end = BEGIN.format(name), END.format(name)
        if fresh.count(begin) != 1 or fresh.count(end) != 1 or fresh.index(begin) > fresh.index(end):
            raise UserError(f"{path} lacks the lines {begin} and {end}, once each; the {name} go between them")
        before, rest = fresh.split(begin)
        fresh = f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}"
    if fresh != text:
        write_atomic(path, fresh)
    return fresh != text
