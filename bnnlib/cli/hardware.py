"""``bnn hardware``: energy tables from cell libraries."""

import shlex
import sys
from pathlib import Path

import click

from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import write_atomic


@click.group()
def hardware() -> None:
    """Energy tables from open synthesis: dot-product units in the cells of a library."""


def _library_options(function):
    function = click.option("--library", required=True, help="Its name, such as osu018.")(function)
    return click.option(
        "--liberty", type=click.Path(path_type=Path), multiple=True, help="Its Liberty files (.lib or .lib.gz)."
    )(function)


@hardware.command("list")
def list_() -> None:
    """The tools and libraries that are here, and how to get those that are not."""
    from bnnlib.hardware import catalogue, synthesis

    try:
        click.echo(f"{'yosys':12}{synthesis.version()}")
    except UserError as error:
        click.echo(f"{'yosys':12}missing: {error}")
    for name, row in catalogue.catalogue().iterrows():
        state = "here" if catalogue.find(name) else f"missing: {row['get']}"
        click.echo(f"{name:12}{row['node_nm']} nm, {row['supply_v']} V, {row['licence']}; {state}")


@hardware.command()
@click.argument("library")
def get(library: str) -> None:
    """Download LIBRARY (osu018) to data/downloads/liberty, its checksum verified."""
    from bnnlib.hardware import catalogue

    click.echo(f"{library}: {catalogue.get(library)}")


@hardware.command()
@_library_options
@click.option("--pairs", default="all", show_default=True, help="Activation x weight: bxb,txb,8x8; or all.")
@click.option("--lengths", default="16,25,64,256,1024,4608", show_default=True, help="Vector lengths.")
@click.option("--output", type=click.Path(path_type=Path), help="File; default data/energy/LIBRARY.csv.")
@click.option("--check", is_flag=True, help="Compare with the committed rows instead; exit status 1 past 3 %.")
def characterize(
    library: str, liberty: tuple[Path, ...], pairs: str, lengths: str, output: Path | None, check: bool
) -> None:
    """Synthesise, simulate and price dot-product units: an energy table."""
    import pandas as pd

    from bnnlib.hardware import catalogue
    from bnnlib.hardware import characterize as flow

    todo = flow.units(flow.parse_pairs(pairs), flow.parse_lengths(lengths))
    if not todo:
        raise UserError(
            f"lengths {lengths} are too long for {pairs}; the table's law reaches beyond what is synthesised"
        )
    cells = catalogue.load(library, liberty)
    path = paths.ENERGY / f"{library}.csv"
    if check and not path.is_file():
        raise UserError(f"there is no {path} to compare with; leave out --check to make it")
    command = shlex.join(
        ["bnn", "hardware", "characterize", "--library", library, "--pairs", pairs, "--lengths", lengths]
    )
    made = flow.table(todo, cells, command)
    if not check:
        write_atomic(output or path, made.to_csv(index=False, lineterminator="\n"))
        click.echo(f"{len(made)} rows, every sum checked: {output or path}")
        return
    compared = list(flow.compare(made, pd.read_csv(path)))
    for name, share in compared:
        says = f"{share:+8.2%}{'' if abs(share) <= flow.TOLERANCE else '  differs'}" if share == share else "no row"
        click.echo(f"{name:36}{says}")
    if not all(abs(share) <= flow.TOLERANCE for _, share in compared):  # no row is no agreement either
        sys.exit(1)


@hardware.command()
@_library_options
def options(library: str, liberty: tuple[Path, ...]) -> None:
    """What the tables leave out, as factors: wires, glitches, clock tree, registers (data/energy/options.csv)."""
    from bnnlib.hardware import catalogue
    from bnnlib.hardware import options as flow

    _write_side_table("options", flow.table, catalogue.load(library, liberty))


@hardware.command()
@_library_options
def activity(library: str, liberty: tuple[Path, ...]) -> None:
    """Energy over zeros and changes of the operands (data/energy/activity.csv)."""
    from bnnlib.hardware import activity as flow
    from bnnlib.hardware import catalogue

    _write_side_table("activity", flow.table, catalogue.load(library, liberty))


def _write_side_table(name: str, make, cells) -> None:
    """The rows of one library made anew; those of the others stay."""
    import pandas as pd

    path = paths.ENERGY / f"{name}.csv"
    made = make(cells, f"bnn hardware {name} --library {cells.name}")
    before = pd.read_csv(path, dtype=str) if path.is_file() else made.head(0)
    rows = pd.concat([before[before["library"] != cells.name], made]).sort_values("library", kind="stable")
    write_atomic(path, rows.to_csv(index=False, lineterminator="\n"))
    click.echo(f"{len(made)} rows of {cells.name}, every sum checked: {path}")
