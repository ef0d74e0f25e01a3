"""The explorer: its page, its widget and `bnn cost` say the same, to the last printed digit."""

import random
import shlex
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from bnnlib import ModelSpec, UserError
from bnnlib.energy import table_names
from bnnlib.energy.breakdown import cost_rows
from bnnlib.files import write_atomic
from bnnlib.operands import OPERANDS
from bnnlib.report import explorer, widget
from bnnlib.specs import ARCHS


def configurations(count: int = 50) -> list[tuple[ModelSpec, str]]:
    """Random networks under random tables, the same in every run; one in five has operands that few tables know."""
    chance = random.Random(0)
    found = []
    for i in range(count):
        arch = chance.choice(list(ARCHS))
        codes = list(OPERANDS) if i % 5 == 0 else "bt8"
        weights = "".join(chance.choices(codes, k=len(ARCHS[arch].layers)))
        acts = "".join(chance.choices(codes, k=len(ARCHS[arch].layers) - 1))
        found.append((ModelSpec(arch, weights, acts, chance.choice(explorer.WIDTHS)), chance.choice(table_names())))
    return found


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """The explorer alone, from a file, on a phone; errors of its scripts fail the test that uses it."""
    folder = tmp_path_factory.mktemp("explorer")
    body = explorer.page().partition("```{raw} html\n")[2].removesuffix("```\n")
    write_atomic(
        folder / "index.html",
        f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="_static/explorer.css">{body}',
    )
    for file in (Path(explorer.__file__).parent / "static").glob("explorer.*s"):
        write_atomic(folder / "_static" / file.name, file.read_text())
    write_atomic(folder / "_static" / "explorer-data.js", explorer.script())
    context = browser.new_context(viewport={"width": 390, "height": 900}, offline=True)
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(f"file://{folder}/index.html")
    yield opened
    context.close()
    assert said == []


def choose(page, spec: ModelSpec, table: str) -> None:
    address = "/".join([spec.arch, spec.weights, spec.acts, f"{spec.width:g}", table])
    page.evaluate("hash => { location.hash = hash }", address)
    page.wait_for_function("word => document.querySelector('[data-of=command]').textContent.includes(word)", arg=table)


def cells(page) -> list[list[str]]:
    """The table as it stands on the page: of a cell that is a choice, the chosen one."""
    return page.evaluate("""() => [...document.querySelectorAll("#explorer tr")].slice(1).map(row =>
        [...row.cells].map(cell => cell.querySelector("select")?.selectedOptions[0].text ?? cell.textContent))""")


def test_page_widget_and_command_line_agree_on_fifty_networks(page, bnn):
    refused = 0
    for spec, table in configurations():
        choose(page, spec, table)
        command = page.inner_text("[data-of=command]")
        status, out, err = bnn(*shlex.split(command)[1:])
        shown = widget.Explorer(spec, table)
        assert shown.spec == spec
        if status:
            refused += 1
            message = page.inner_text("[data-of=error]")
            assert message and message in err, command
            assert message in shown.as_html().replace("&#x27;", "'")
            continue
        lines = [line.split() for line in out.splitlines()[1:]]
        lines[-1] = lines[-1][:3]  # what follows the total names its unit
        assert [[text for text in row if text] for row in cells(page)] == lines, command
        rows = BeautifulSoup(shown.as_html(), "html.parser").select("tbody tr")
        assert [row.get_text(" ").split() for row in rows] == lines, command
    assert 0 < refused < 25  # tables that lack a pair are among them, and most are not


def test_a_change_of_one_operand_by_hand_is_in_the_sum_and_in_the_address(page):
    choose(page, ModelSpec("vggnet7", "b" * 9, "b" * 8), "horowitz45")
    page.select_option('[aria-label="weights of conv3"]', label="ternary")
    page.select_option('[aria-label="input of fc1"]', label="fixed8")
    spec = ModelSpec("vggnet7", "bbtbbbbbb", "bbbbb8bb")
    total = cost_rows(spec, "horowitz45")["energy_fj"].sum() * 1e-9
    assert cells(page)[-1][5] == f"{total:.4f}"
    assert page.inner_text("[data-of=total]").startswith(f"{total:.4f} µJ")
    assert page.url.endswith("#vggnet7/bbtbbbbbb/bbbbb8bb/1/horowitz45")
    page.reload()
    assert cells(page)[-1][5] == f"{total:.4f}"


@pytest.mark.parametrize(
    "address", ["nonsense", "lenet5/bbbb/bb/1/icmla2020", "lenet5/bbbx/bbb/1/icmla2020", "lenet5/bbbb/bbb/3/icmla2020",
                "lenet5/bbbb/bbb/1/none", "resnet/b/b/1/icmla2020"]
)  # fmt: skip
def test_an_address_that_names_no_network_changes_nothing(page, address):
    choose(page, ModelSpec("lenet5", "tbbb", "bbb", 2), "horowitz45")
    before = cells(page)
    page.evaluate("hash => { location.hash = hash }", address)
    page.wait_for_function("() => location.hash === '#lenet5/tbbb/bbb/2/horowitz45'")
    assert cells(page) == before


def test_measured_networks_are_where_their_tables_have_them(page):
    choose(page, ModelSpec("lenet5", "bbbb", "bbb"), "icmla2020")
    sets = explorer.collect()["networks"]["lenet5"]["points"]
    (ours,) = [one for one in sets if one["name"].startswith("measured here (short")]
    page.select_option("[data-of=points]", label=ours["name"])
    assert page.locator("circle").count() == len(ours["points"])
    binary = next(point for point in ours["points"] if point["name"] == "binary")
    assert f"{binary['accuracy']:.2f} ± {binary['sd']:.2f} % (n = {binary['n']})" in page.inner_text("[data-of=known]")
    page.select_option("[data-of=preset]", label="TALL")
    assert page.inner_text("[data-of=known]").startswith("TALL: ")
    page.select_option('[aria-label="weights of fc2"]', label="fixed3")
    assert page.inner_text("[data-of=known]").startswith("No accuracy of this very network")


def test_the_page_fits_a_phone_and_every_control_has_a_name(page):
    choose(page, ModelSpec("vggnet7", "b" * 9, "b" * 8), "icmla2020")
    assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0
    nameless = "[...document.querySelectorAll('select')].filter(s => !s.labels.length && !s.ariaLabel).length"
    assert page.evaluate(nameless) == 0


def test_the_widget_shows_why_where_a_table_has_no_energy():
    made = widget.Explorer(ModelSpec("lenet5", "bbbb", "bbb"))
    made.table.value = "sky130"
    made.weights[1].value = "f"
    with pytest.raises(UserError) as refused:
        cost_rows(ModelSpec("lenet5", "bfbb", "bbb"), "sky130")
    assert made.shown.value == made.as_html()
    assert str(refused.value) in made.shown.value.replace("&#x27;", "'")
    made.arch.value = "vggnet7"
    assert made.spec == ModelSpec("vggnet7", "b" * 9, "b" * 8)
    assert made._repr_mimebundle_()["text/html"] == made.as_html()
