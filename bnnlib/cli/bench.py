"""``bnn bench``: measure this machine."""

import json
from pathlib import Path

import click

from bnnlib.errors import UserError
from bnnlib.specs import ARCHS


@click.group("bench")
def benchmarks() -> None:
    """Measure this machine; nothing of it runs in the tests."""


@benchmarks.command("training")
@click.option("--network", "networks", multiple=True, type=click.Choice(sorted(ARCHS)), help="Only this network.")
@click.option("--device", help="A torch device; default cuda if there is one, else cpu.")
@click.option("-x", "options", multiple=True, metavar="NAME=on|off", help="How to execute ours: kernels, amp, graph, …")
@click.option("--seconds", default=2.0, show_default=True, help="For each side, in each round.")
@click.option("--rounds", default=5, show_default=True, help="Figures are medians over so many.")
@click.option("--json", "as_json", is_flag=True, help="Print an object that a program may read.")
@click.option(
    "--against",
    type=click.Path(file_okay=False, path_type=Path),
    help="Another checkout of this project: VGGNet7 here and there, in turns.",
)
def bench_training(
    networks: tuple[str, ...], device: str | None, options: tuple[str, ...], seconds: float, rounds: int, as_json: bool,
    against: Path | None,
) -> None:  # fmt: skip
    """Images per second in training, beside a plain loop and the machine's matrix product, taking turns."""
    from bnnlib.bench import training
    from bnnlib.training.execution import Execution

    if against is not None:
        if networks or device or options:
            raise UserError("--against times VGGNet7 on the CPU as it is; leave out --network, --device and -x")
        _against(against.resolve(), seconds, rounds, as_json)
        return
    execution, rows = Execution.choose(device, **Execution.parse(options)), []
    header = (
        f"{'network':9}{'precision':>10}{'gradient':>9}{'batch':>6}{'ours img/s':>12}{'plain img/s':>12}{'ratio':>7}"
        f"{'of peak':>9}"
    )
    if not as_json:
        click.echo(f"{training.machine(execution)}\n{header}")
    for row in training.training(execution, networks, seconds, rounds):
        rows.append(row)
        if not as_json:
            plain = f"{row['plain_img_s']:12,.0f}{row['ratio']:7.2f}" if row["ratio"] else f"{'-':>12}{'-':>7}"
            click.echo(
                f"{row['network']:9}{row['precision']:>10}{row['gradient_bits']:9}{row['batch']:6}"
                f"{row['ours_img_s']:12,.0f}{plain}{row['peak_share']:9.1%}"
            )
    if as_json:
        click.echo(
            json.dumps(
                {"machine": training.machine(execution), "execution": execution.as_dict(), "rows": rows}, indent=1
            )
        )


def _against(other: Path, seconds: float, rounds: int, as_json: bool) -> None:
    """Training here and in another checkout."""
    from bnnlib.bench import commits, training
    from bnnlib.runs.provenance import instructions, source_commit
    from bnnlib.training.execution import Execution

    about = {
        "machine": training.machine(Execution.choose("cpu")),
        "instructions": instructions("cpu"),
        "commit": source_commit(),
        "other": source_commit(other / "bnnlib"),
    }
    if not as_json:
        click.echo(f"{about['machine']}; {about['instructions']}; {about['commit']} and, as other, {about['other']}")
        click.echo(
            f"{'weights':10}{'acts':>9}{'gradient':>9}{'batch':>6}{'ours img/s':>12}{'other img/s':>12}{'ratio':>7}"
        )
    rows = []
    for row in commits.against(other, seconds, rounds):
        rows.append(row)
        if not as_json:
            click.echo(
                f"{row['weights']:10}{row['acts']:>9}{row['gradient_bits'] or 32:9}{row['batch']:6}"
                f"{row['ours_img_s']:12,.0f}{row['other_img_s']:12,.0f}{row['ratio']:7.2f}"
            )
    if as_json:
        click.echo(json.dumps(about | {"rows": rows}, indent=1))


@benchmarks.command("agreement")
@click.option("--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Trainings of each.")
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Of binary LeNet5 on MNIST.")
def bench_agreement(seeds: int, epochs: int) -> None:
    """Validation curves of fast training and of the plain loop (an hour or more; goes on where it stopped)."""
    from bnnlib.bench import agreement

    rows = agreement.compare(agreement.measure(seeds, epochs, click.echo))
    click.echo(rows.round(3).to_string())


@benchmarks.command("packed")
@click.option("--seconds", default=1.0, show_default=True, help="For each side, in each round.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Figures are medians over so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print an object that a program may read.")
def bench_packed(seconds: float, rounds: int, as_json: bool) -> None:
    """Packed execution of VGGNet7 beside torch in float32, bfloat16 and int8, and OpenVINO if it is installed."""
    from bnnlib.bench import packed, training
    from bnnlib.kernels import processor
    from bnnlib.training.execution import Execution

    machine = f"{training.machine(Execution.choose('cpu'))}; binary products by {processor.counting()}"
    if not as_json:
        click.echo(
            f"{machine}\n{'GMAC/s':17}{'ours':>8}{'float32':>9}{'ratio':>7}   {'best other':17}{'':6}{'ratio':>7}"
        )
    rows = []
    for row in packed.packed(seconds, rounds):
        rows.append(row)
        if not as_json:
            other = "-"
            if row["best_other"]:
                other = f"{row['best_other']:17}{row['best_other_gmac_s']:6,.0f}{row['ratio_best_other']:7.1f}"
            ours = f"{row['ours_gmac_s']:8,.0f}{row['torch_fp32_gmac_s']:9,.0f}{row['ratio_fp32']:7.1f}"
            click.echo(f"{row['what']:17}{ours}   {other}")
    peak = packed.peak_megabytes()
    if as_json:
        click.echo(json.dumps({"machine": machine, "rows": rows, "peak_mb": round(peak, 1)}, indent=1))
    else:
        click.echo(f"memory for 10,000 images: {peak:.0f} MB, weights included")
