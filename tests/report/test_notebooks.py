"""The batch of notebooks, on tiny ones made here; and the rules of this project, on the committed ones."""

import json
import sys

import pytest

from bnnlib import UserError, figures, paths
from bnnlib.files import write_atomic
from bnnlib.report import notebooks, refresh

PARAMETERS = """mode: str = "quick"  # quick or full
steps: int = 3  # how many
rates: list[float] = [0.1]  # of learning"""


def write(folder, name, *cells):
    """Write a notebook: text that starts with # or [ is prose, a pair is code with a tag, the rest is code."""
    made = []
    for i, cell in enumerate(cells):
        source, tags = cell if isinstance(cell, tuple) else (cell, [])
        prose = source.startswith(("# ", "## ", "["))
        kind = {"cell_type": "markdown"} if prose else {"cell_type": "code", "execution_count": None, "outputs": []}
        made.append({"id": f"cell-{i}", "metadata": {"tags": tags}, "source": source.splitlines(True)} | kind)
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "notebooks"
    path.mkdir()
    return path


def said(copy):
    """All printed text of an executed notebook."""
    outputs = [output for cell in notebooks.read(copy)["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)


# --- the batch, with real kernels -------------------------------------------------------------------------------------

LOOK = """import os, sys
print(mode, steps, rates, os.environ["MPLBACKEND"])
print(sys.executable)
print(os.getcwd())"""
FAILS = "x = 1\nassert x == 2, 'x is wrong'"


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Four notebooks, two of which fail, run once; another kernel named python3 would win if the notebooks chose."""
    root = tmp_path_factory.mktemp("batch")
    folder = root / "notebooks"
    folder.mkdir()
    declared = (PARAMETERS, ["parameters"])
    write(folder, "00_good", "# Good", declared, LOOK)
    write(folder, "01_fails", "# Fails", declared, "## Claims", FAILS, "print('never')")
    write(folder, "02_dies", "# Dies", "import os\nos._exit(3)")
    write(folder, "03_after", "# After", 'print("here")')
    kernel = root / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/nonexistent"], "display_name": "x", "language": "python"}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
        patch.setenv("MPLBACKEND", "Agg")
        patch.chdir(root)
        given = {"steps": "7", "rates": "0.5,1e-3"}
        outcomes = notebooks.run_all(parameters=given, mode="full", out=root / "build", folder=folder)
    return root, before, {outcome.name: outcome for outcome in outcomes}


def test_the_others_run_on_after_a_failure(batch):
    _, _, outcomes = batch
    assert list(outcomes) == ["00_good", "01_fails", "02_dies", "03_after"]
    assert [outcome.status for outcome in outcomes.values()] == ["done", "failed", "failed", "done"]
    assert all(0 < outcome.minutes < 2 for outcome in outcomes.values())


def test_a_failure_names_cell_and_error(batch):
    _, _, outcomes = batch
    assert outcomes["01_fails"].error == "cell 4 under 'Claims' (`x = 1`): AssertionError: x is wrong"
    assert outcomes["02_dies"].error.startswith("cell 2 under 'Dies' (`import os`): DeadKernelError")
    assert str(outcomes["01_fails"]).startswith("01_fails                 failed     0.")


def test_kernel_folder_and_parameters_are_fixed(batch):
    root, _, _ = batch
    lines = said(root / "build" / "notebooks" / "00_good.ipynb").splitlines()
    assert lines[0] == "full 7 [0.5, 0.001] module://matplotlib_inline.backend_inline"
    assert lines[1:] == [sys.executable, str(root / "notebooks")]


def test_committed_notebooks_are_only_read(batch):
    root, before, _ = batch
    assert {path.name: path.read_bytes() for path in (root / "notebooks").iterdir()} == before


# --- what the batch decides, with the execution replaced --------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Replace execution: ``fake.ran`` lists what ran, ``fake.stops`` names a notebook that Ctrl-C interrupts."""

    class Fake:
        ran, stops, fails = [], None, None

    def execute(path, copy, parameters, bar=False):
        Fake.ran.append((path.stem, dict(parameters)))
        if path.stem == Fake.stops:
            raise KeyboardInterrupt
        write_atomic(copy, path.read_text())
        return "cell 1: wrong" if path.stem == Fake.fails else ""

    monkeypatch.setattr(notebooks, "execute", execute)
    return Fake


@pytest.fixture
def three(folder):
    for name in ("00_a", "01_b", "02_c"):
        write(folder, name, "# Title", (PARAMETERS, ["parameters"]), "print(mode, steps)")
    return folder


def run(three, **options):
    return [o.status for o in notebooks.run_all(out=three.parent / "build", folder=three, progress=False, **options)]


def test_interrupted_batch_goes_on(three, fake):
    run(three)
    fake.ran.clear()
    fake.stops = "01_b"
    with pytest.raises(KeyboardInterrupt):
        run(three)
    fake.stops = None
    # 02_c counts as not done, although an earlier batch finished it: this batch began anew
    assert run(three, resume=True) == ["skipped", "done", "done"]
    assert [name for name, _ in fake.ran] == ["00_a", "01_b", "01_b", "02_c"]
    assert run(three, resume=True) == ["skipped"] * 3
    assert run(three) == ["done"] * 3


def test_resume_runs_what_changed_or_failed(three, fake):
    fake.fails = "01_b"
    assert run(three) == ["done", "failed", "done"]
    assert run(three, resume=True) == ["skipped", "failed", "skipped"]
    fake.fails = None
    assert run(three, resume=True) == ["skipped", "done", "skipped"]
    write(three, "02_c", "# Title", (PARAMETERS, ["parameters"]), "print(1)")
    assert run(three, resume=True) == ["skipped", "skipped", "done"]
    assert run(three, resume=True, mode="full") == ["done"] * 3
    assert run(three, resume=True, mode="full", parameters={"steps": "4"}) == ["done"] * 3
    assert fake.ran[-1] == ("02_c", {"mode": "full", "steps": 4})
    (three.parent / "build" / "notebooks" / "00_a.ipynb").unlink()
    assert run(three, resume=True, mode="full", parameters={"steps": "4"}) == ["done", "skipped", "skipped"]


def test_what_failed_last_is_not_done_before(three, fake):
    run(three)
    before = (three / "01_b.ipynb").read_text()
    write(three, "01_b", "1 / 0")
    fake.fails = "01_b"
    assert run(three, resume=True) == ["skipped", "failed", "skipped"]
    (three / "01_b.ipynb").write_text(before)  # finished once, but its copy and page are those of the failure
    fake.fails = None
    assert run(three, resume=True) == ["skipped", "done", "skipped"]


def test_some_notebooks_by_number_name_or_path(three, fake):
    assert run(three, names=["02", "00_a.ipynb"]) == ["done", "done"]
    assert [name for name, _ in fake.ran] == ["00_a", "02_c"]  # in order, whatever order was asked for
    with pytest.raises(UserError, match="no notebook '07'; there are 00_a, 01_b, 02_c"):
        run(three, names=["07"])


def test_a_parameter_reaches_the_notebooks_that_declare_it(three, fake):
    write(three, "03_d", "# Title", ('other: str = "x"  # text', ["parameters"]))
    run(three, parameters={"other": "y"})
    assert [set(parameters) for _, parameters in fake.ran] == [{"mode"}] * 3 + [{"other"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"stepz": "1"}}, "no notebook of this run has a parameter 'stepz'; known: mode, rates, steps"),
        ({"parameters": {"steps": "many"}}, "parameter steps is int, not 'many'"),
        ({"parameters": {"steps": 1.5}}, "parameter steps is int, not 1.5"),
        ({"parameters": {"rates": "0.1,x"}}, r"parameter rates is list\[float\], not '0.1,x'"),
        ({"parameters": {"mode": "fast"}}, "mode 'fast' is unknown; use quick or full"),
        ({"mode": "fast"}, "mode 'fast' is unknown; use quick or full"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(three, fake, options, message):
    with pytest.raises(UserError, match=message):
        run(three, **options)
    assert not fake.ran


def test_damaged_notebook_and_folder_are_named(three, fake):
    (three.parent / "build").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot write"):
        run(three)
    (three / "01_b.ipynb").write_text('{"cells": [')
    with pytest.raises(UserError, match=r"01_b.ipynb is damaged"):
        run(three)
    with pytest.raises(UserError, match="no numbered notebook"):
        notebooks.find(folder=three.parent)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_declared_parameters(folder):
    source = 'a: int = -1  # the first\nb: "str | None" = None\nc: str | None = None  # a # b\nd: bool = True\n'
    path = write(folder, "00_a", (source.replace('"str | None"', "float"), ["parameters"]))
    with pytest.raises(UserError, match="parameter b is float, not None"):
        notebooks.parameters_of(path)
    path = write(folder, "00_a", (source.replace('"str | None" = None', "list[str] = ['x']"), ["parameters"]))
    found = notebooks.parameters_of(path)
    assert [(p.name, p.type, p.default, p.help) for p in found.values()] == [
        ("a", "int", -1, "the first"),
        ("b", "list[str]", ["x"], ""),
        ("c", "str | None", None, "a # b"),
        ("d", "bool", True, ""),
    ]


@pytest.mark.parametrize("source", ["a = 1", "import os", "a: int", "a: int = 1 + n", "a: int = (", "a: int = b"])
def test_only_typed_literals_are_parameters(folder, source):
    with pytest.raises(UserError, match=r"00_a\.ipynb: parameters are lines `name: type = literal  # help`"):
        notebooks.parameters_of(write(folder, "00_a", (source, ["parameters"])))


def test_two_cells_of_parameters_are_refused(folder):
    path = write(folder, "00_a", ("a: int = 1", ["parameters"]), ("b: int = 1", ["parameters"]))
    with pytest.raises(UserError, match="2 cells tagged parameters"):
        notebooks.parameters_of(path)


@pytest.mark.parametrize(
    ("kind", "value", "right"),
    [
        ("int", "-3", -3), ("int", 5, 5), ("float", "1e-3", 0.001), ("float", 2, 2.0), ("str", "7", "7"),
        ("bool", "True", True), ("bool", "0", False), ("bool", False, False), ("int | None", "none", None),
        ("int | None", "4", 4), ("list[int]", "0,1", [0, 1]), ("list[int]", "[0, 1]", [0, 1]), ("list[str]", "", []),
        ("list[float]", [1, 2.5], [1.0, 2.5]),
    ],
)  # fmt: skip
def test_conversion(kind, value, right):
    found = notebooks.convert(notebooks.Parameter("x", kind, None, ""), value)
    assert (found, type(found)) == (right, type(right))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "1.0"), ("int", True), ("int", None), ("float", "nan"), ("float", "inf"), ("float", True), ("str", 1),
        ("bool", "perhaps"), ("bool", 1), ("list[int]", "1,x"), ("list[int]", 3), ("int | None", "nil"), ("dict", "{}"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(kind, value):
    with pytest.raises(UserError, match=r"parameter x is|type 'dict' is unknown"):
        notebooks.convert(notebooks.Parameter("x", kind, None, ""), value)


# --- refreshing and the rules -----------------------------------------------------------------------------------------

DRAW = """import matplotlib.pyplot as plt
from bnnlib import figures
figures.style()
fig, ax = plt.subplots()
ax.plot([1, 2])
figures.save(fig, "line", ["table.csv"], alt="A line.", made_by="00_a")"""
TITLE = "# A title\n\nReproduces Figure 4 of the paper."
GOOD = [
    TITLE,
    (PARAMETERS, ["parameters"]),
    "import sys\nprint('out')\nprint(1 + 1)",
    DRAW,
    "assert 1 + 1 == 2",
    ("from bnnlib.report.notebooks import versions\nversions()", ["nbval-ignore-output"]),
    "[previous](00_a.ipynb) [next](01_b.ipynb)",
]


def test_refresh_gives_the_same_bytes_twice(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))
    monkeypatch.setenv("BNN_FIGURES", str(folder.parent / "figures"))
    (folder / "table.csv").write_text("a\n1\n")
    draw = DRAW.replace("table.csv", str(folder / "table.csv"))
    path = write(folder, "00_a", *[draw if cell is DRAW else cell for cell in GOOD])
    write(folder, "01_b", "# Next")
    seen = []
    for _ in range(2):
        (outcome,) = refresh.refresh(["00"], folder, progress=False)
        assert (outcome.status, outcome.error) == ("done", "")
        seen.append(path.read_bytes())
    assert seen[0] == seen[1]
    assert refresh.check(path) == []
    (shown,) = notebooks.read(path)["cells"][3]["outputs"]  # once, though it is shown by save and was open in the cell
    assert shown["metadata"] == {"image/png": {"alt": "A line."}}
    assert sorted(p.name for p in (folder.parent / "figures").iterdir()) == ["line.json", "line.pdf", "line.png"]


def test_refresh_leaves_a_failed_notebook_alone(folder):
    fails = write(folder, "00_a", "# A", "1 / 0")
    tells = write(folder, "01_b", "# B", "import os\nos.getcwd()")
    before = fails.read_bytes(), tells.read_bytes()
    outcomes = refresh.refresh(folder=folder, progress=False)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert "ZeroDivisionError" in outcomes[0].error and "an absolute path" in outcomes[1].error
    assert (fails.read_bytes(), tells.read_bytes()) == before


@pytest.fixture
def good(folder):
    """A notebook that keeps all rules, as if executed."""
    write(folder, "01_b", "# Next")

    def made(*changes):
        path = write(folder, "00_a", *[dict(changes).get(i, cell) for i, cell in enumerate(GOOD)])
        notebook = refresh.clean(notebooks.read(path))
        for count, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
            cell["execution_count"] = count
        path.write_text(json.dumps(notebook))
        return path

    return made


@pytest.mark.parametrize(
    ("cell", "source", "message"),
    [
        (0, "print(1)", "the first cell is not a title"),
        (0, "# A title\n\nOf a figure.", "which figure, table or section"),
        (1, PARAMETERS, "not exactly one cell tagged parameters"),
        (1, ("steps: int = 1  # n", ["parameters"]), "lack `mode"),
        (1, ('mode: str = "full"  # m', ["parameters"]), "lack `mode"),
        (1, (PARAMETERS + "\nx: int = 1", ["parameters"]), "parameter x lacks a comment"),
        (2, "%time\ndef f():\n" + "    pass\n" * 15, "cell 3: f has 16 lines"),
        (4, "print(1)", "does not assert the claims"),
        (5, "versions()", "does not print versions()"),
        (6, "[index](00_a.ipynb)", "does not link to the next notebook, 01_b.ipynb"),
        (6, "[next](01_b.ipynb) [gone](02_c.ipynb#x)", "cell 7: the link to 02_c.ipynb leads nowhere"),
    ],
)
def test_broken_rules_are_named(good, cell, source, message):
    assert refresh.check(good()) == []
    assert any(message in found for found in refresh.check(good((cell, source))))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"output_type": "stream", "name": "stdout", "text": ["in /home/me/\n"]}, "cell 3: an absolute path"),
        ({"output_type": "stream", "name": "stdout", "text": "see http://x.org"}, "a web address"),
        ({"output_type": "stream", "name": "stderr", "text": "a warning"}, "output on stderr: 'a warning'"),
        ({"output_type": "execute_result", "data": {"text/plain": "<A at 0x7f01aa02>"}}, "a memory address"),
        ({"output_type": "execute_result", "data": {"text/html": ["<td>C:\\x</td>"]}}, "an absolute path"),
        ({"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}}}, "a widget"),
        ({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}, "an error as output"),
    ],
)
def test_outputs_that_differ_elsewhere_are_named(good, output, message):
    path = good()
    notebook = notebooks.read(path)
    notebook["cells"][2]["outputs"] = [output]
    path.write_text(json.dumps(notebook))
    assert any(message in found for found in refresh.check(path))


def test_harmless_outputs_pass(good):
    path = good()
    notebook = notebooks.read(path)
    texts = {"text/plain": "9 fJ/MAC at x/y/z, 1/2", "text/html": "<tr><td>a/b</td></tr>", "image/png": "/9j/4AA/x"}
    notebook["cells"][2]["outputs"] = [{"output_type": "execute_result", "data": texts}]
    path.write_text(json.dumps(notebook))
    assert refresh.check(path) == []


def test_stale_execution_is_named(good):
    path = good()
    notebook = notebooks.read(path)
    notebook["cells"][2]["execution_count"] = None
    notebook["cells"][3]["metadata"]["execution"] = {"iopub.execute_input": "now"}
    notebook["metadata"]["kernelspec"] = {"name": "mine"}
    path.write_text(json.dumps(notebook))
    for message in ("executed in the order [1, None, 3", "cell 4: timings", "metadata of another tool"):
        assert any(message in found for found in refresh.check(path))


def test_versions_are_one_line():
    assert notebooks.versions().startswith("bnnlib ") and "torch " in notebooks.versions()


# --- the committed ones -----------------------------------------------------------------------------------------------


def committed():
    return sorted(paths.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.stem)
def test_committed_notebook_keeps_the_rules(path):
    assert refresh.check(path) == []


def test_committed_figures_agree_with_their_sources():
    assert figures.check_sidecars(paths.FIGURES) == []
