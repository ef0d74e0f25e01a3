"""The command line ``bnn``: what it costs, what was run, what is missing, and how to make it."""

import json
import sys

import click

import bnnlib
from bnnlib import paths
from bnnlib.cli.bench import benchmarks
from bnnlib.cli.hardware import hardware
from bnnlib.cli.packed import export, predict, verify
from bnnlib.errors import UserError, counted
from bnnlib.specs import ARCHS, DATASETS, ModelSpec


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the file, which is the order of use


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(bnnlib.__version__, prog_name="bnn")
def cli() -> None:
    """Efficient binary neural networks: energy, training, results."""
    paths.check_root()


@cli.command()
@click.argument("arch")
@click.option("--weights", help="One operand code per layer: b binary, t ternary, 2..9 and h (16) bits, f float.")
@click.option("--acts", help="One operand code per hidden activation.")
@click.option("--width", type=float, default=1, show_default=True, help="Factor on the channels of the convolutions.")
@click.option("--table", default="icmla2020", show_default=True, help="Energy table, a file of data/energy.")
@click.option(
    "--memory", is_flag=False, flag_value="memory45", metavar="[TABLE]",
    help="Reading weights and moving activations too, in a column of its own; default memory45, 45 nm.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print an object that a program may read.")
def cost(
    arch: str, weights: str | None, acts: str | None, width: float, table: str, memory: str | None, as_json: bool
) -> None:
    """Energy of one classification of ARCH (lenet5, vggnet7), layer by layer; all binary unless told."""
    layers = len(ARCHS[arch].layers) if arch in ARCHS else 1
    spec = ModelSpec(
        arch, weights if weights is not None else "b" * layers, acts if acts is not None else "b" * (layers - 1), width
    )
    from bnnlib.energy.breakdown import cost_rows, printed  # torch takes seconds, and a mistake is told before

    rows = cost_rows(spec, table, memory)
    energies = ["energy_fj", "memory_fj"] if memory else ["energy_fj"]
    if as_json:
        keys = ["name", "macs", "vector_length", "weight", "act", *energies]
        layers_json = json.loads(rows[keys].to_json(orient="records", double_precision=10))
        totals = {
            name.replace("energy_fj", "total_uj").replace("_fj", "_uj"): rows[name].sum() * 1e-9 for name in energies
        }
        click.echo(json.dumps(totals | {"layers": layers_json}, indent=1))
        return
    lines = printed(rows)
    for row in [lines.columns, *lines.to_numpy()]:
        name, macs, vector, act, weight, uj, share, *more = row
        line = f"{name:8}{macs:>13}{vector:>8}  {act:11}{weight:9}{uj:>9}{share:>8}" + "".join(f"{x:>12}" for x in more)
        which = table + "".join(f", memory {memory}" for _ in more)
        click.echo(f"{line.rstrip()}   uJ per classification, table {which}" if name == "total" else line)


@cli.command()
@click.argument("study")
@click.option("--name", help="A network (L1T) or a run (L1T-short).")
@click.option("--protocol", help="The protocol; default short, or the one in the name of a run.")
@click.option("--seed", type=int, help="Only this seed.")
@click.option("--device", help="A torch device; default cuda if there is one, else cpu.")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0),
    help="Stop after a checkpoint in time; exit status 75 if work is left.",
)
@click.option("--overwrite", is_flag=True, help="Train again what is done, and replace its result.")
@click.option("--jobs", type=click.IntRange(min=1), help="Train so many at once, each in a process; default 1.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Train on the Dask cluster of this scheduler (tcp://host:8786); local makes one here, of --jobs workers.",
)
@click.option("-x", "options", multiple=True, metavar="NAME=on|off", help="How to execute it: kernels, amp, graph, …")
@click.option("--pack", is_flag=True, help="Keep the trained networks too, as packed files in data/pretrained.")
def train(
    study: str, name: str | None, protocol: str | None, seed: int | None, device: str | None,
    max_minutes: float | None, overwrite: bool, jobs: int | None, scheduler: str | None, options: tuple[str, ...],
    pack: bool,
) -> None:  # fmt: skip
    """Train the runs of STUDY that have no result yet. An interrupted run goes on from its last epoch.

    A run that fails is reported and does not stop the others; the exit status is then 1.
    """
    from bnnlib import studies

    if protocol is None and (name is None or name in studies.get_study(study).networks):
        protocol = "short"
    chosen = studies.runs(study, name, protocol, seed)
    if overwrite and max_minutes is not None and len(chosen) > 1:
        raise UserError("--overwrite with --max-minutes begins anew each time; name one run with --name and --seed")
    if jobs is not None and scheduler not in (None, "local"):
        raise UserError(f"--jobs {jobs} is for this machine; a cluster trains as many at once as it has workers")
    from bnnlib.runs import runner  # torch takes seconds, and a mistake is told before
    from bnnlib.training.execution import Execution

    failed = 0
    try:
        left = runner.train_runs(
            chosen, device, max_minutes, overwrite, click.echo, options=Execution.parse(options), jobs=jobs,
            scheduler=scheduler, warn=lambda line: click.echo(f"bnn: {line}", err=True), pack=pack,
        )  # fmt: skip
    except runner.RunsFailedError as error:
        failed, left = len(error.failed), error.left
        click.echo(f"{counted(failed, 'run')} failed")
    if left:
        click.echo(f"{counted(left, 'run')} left; the same command goes on")
    if failed or left:
        sys.exit(1 if failed else 75)


@cli.command()
@click.option("--study", help="Only this study.")
@click.option("--missing", is_flag=True, help="Only runs without a valid result, as the commands that make them.")
@click.option("--json", "as_json", is_flag=True, help="Print a list that a program may read.")
def runs(study: str | None, missing: bool, as_json: bool) -> None:
    """Every run of the studies: its result, or the command that makes it."""
    from bnnlib.studies import results

    rows = [row for row in results.status(study) if not missing or row["status"] != "done"]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        if row["status"] != "done":
            click.echo(row["command"] if missing else f"{row['status']:8} {row['command']}")
        else:
            accuracies = f"val {row['val_accuracy']:6.2f} %  test {row['test_accuracy']:6.2f} %"
            click.echo(
                f"done     {row['study']:15} {row['name']:15} s{row['seed']}  {accuracies}  {row['energy_uj']:.4f} uJ"
            )


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list that a program may read.")
@click.option("--readme", is_flag=True, help="Write the table of claims into README.md (for authors).")
def claims(as_json: bool, readme: bool) -> None:
    """Each claim of the paper, what was measured here, and whether it holds."""
    from bnnlib.analysis.claims import judge
    from bnnlib.report import claims_text

    judged = judge()
    if readme:
        click.echo("README.md: " + ("new table" if claims_text.update_readme(judged) else "the table was up to date"))
    elif as_json:
        click.echo(json.dumps(json.loads(judged.to_json(orient="records")), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(claims_text.lines(judged)))


@cli.command()
@click.argument("arch")
@click.option("--budget-uj", type=float, required=True, help="Microjoules per classification that may be spent.")
@click.option("--study", help="The study whose results are used; default the capacity study of ARCH.")
@click.option("--protocol", default="short", show_default=True, help="The protocol of these results.")
@click.option("--table", default="icmla2020", show_default=True, help="Energy table, a file of data/energy.")
@click.option("--by", type=click.Choice(["validation", "test"]), default="validation", show_default=True)
@click.option("--confidence", default=0.95, show_default=True, help="Of the interval that has to be clear of zero.")
@click.option("--together", is_flag=True, help="Let the confidence hold for all compared networks at once.")
@click.option("--json", "as_json", is_flag=True, help="Print an object that a program may read.")
def recommend(arch: str, as_json: bool, **options: object) -> None:
    """The network for an energy budget: steps of most accuracy per microjoule from the all-binary ARCH, as measured."""
    from bnnlib.analysis import recommendation

    found = recommendation.recommend(arch, **options)
    click.echo(json.dumps(found.as_dict(), indent=1) if as_json else "\n".join(recommendation.report(found)))


@cli.group()
def data() -> None:
    """Fetch and check the data sets."""


@data.command()
@click.argument("name")
def get(name: str) -> None:
    """Download data set NAME to $BNN_DATA or data/downloads and check its md5 sums."""
    from bnnlib import data as datasets

    datasets.get(name)
    click.echo(f"{name}: complete" + (f" in {paths.datasets_dir()}" if datasets.expected_files(name) else ""))


@data.command()
def check() -> None:
    """Say of every data set whether it is there and whole."""
    from bnnlib import data as datasets

    for name in DATASETS:
        try:
            datasets.verify(name)
            click.echo(f"{name}: complete")
        except UserError as error:
            click.echo(str(error))


@cli.command()
@click.option("--only", multiple=True, help="Only this notebook (03, or 03_cost_analysis); may be repeated.")
@click.option("--mode", default="quick", show_default=True, help="quick, or full: train the long runs anew.")
@click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the notebooks.")
@click.option("--resume", is_flag=True, help="Skip what an earlier batch finished.")
def reproduce(only: tuple[str, ...], mode: str, parameters: tuple[str, ...], resume: bool) -> None:
    """Run the notebooks in order and build the report of them; both go to build/, figures to figures/."""
    from bnnlib.report import notebooks, site

    outcomes = notebooks.run_all(only or None, dict(_pair(p) for p in parameters), mode, resume)
    copies = [paths.BUILD / "notebooks" / f"{outcome.name}.ipynb" for outcome in outcomes if not outcome.error]
    click.echo(f"report: {site.build(copies)}")
    _finish(outcomes)


@cli.command()
@click.option("--out", help="Folder of the report; default build/html.")
def report(out: str | None) -> None:
    """Build the report site from the committed notebooks, with nothing executed."""
    from bnnlib.report import site

    click.echo(f"report: {site.build(out=out)}")


@cli.command()
@click.argument("names", nargs=-1)
def refresh(names: tuple[str, ...]) -> None:
    """Execute the committed notebooks in place (for authors); all of them, or NAMES."""
    from bnnlib.report.refresh import refresh as execute_in_place

    _finish(execute_in_place(names or None))


for command in (benchmarks, verify, predict, export, hardware):
    cli.add_command(command)


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise UserError(f"parameter {text!r} has no value; use for example -p seed=1")
    return name, value


def _finish(outcomes: list) -> None:
    if any(outcome.status == "failed" for outcome in outcomes):
        sys.exit(1)


def main() -> None:
    """Entry point: a user's mistake is one line and exit status 2."""
    try:
        cli(standalone_mode=False)
    except UserError as error:
        click.echo(f"bnn: {error}", err=True)
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
    except click.ClickException as error:
        click.echo(f"bnn: {' '.join(error.format_message().split())}; see `bnn --help`", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("bnn: interrupted; the same command goes on (a batch of notebooks with --resume)", err=True)
        sys.exit(130)
