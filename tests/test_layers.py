"""The library as a whole: which part may import which, and whether its lists of modules are true."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

import bnnlib
from bnnlib import paths
from bnnlib.report import notebooks
from bnnlib.runs import cluster

# A line imports only from lines below it, and from itself; parts of one line do not import each other.
LAYERS = """
cli
report
figures
bench analysis runs
studies
packed training hardware
export kernels energy
nn
data
specs
operands
files paths
errors
"""
LEVEL = {part: level for level, line in enumerate(LAYERS.split("\n")) for part in line.split()}
LIBRARY = Path(bnnlib.__file__).parent


def imports(path: Path) -> set[str]:
    """Modules of the library that a file imports, at its top or within a function: ``nn.layers``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides what it imports"
            if node.module == "bnnlib":
                found |= {name.name for name in node.names}
            elif (node.module or "").startswith("bnnlib."):
                found |= {f"{node.module.removeprefix('bnnlib.')}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.removeprefix("bnnlib.") for name in node.names if name.name.startswith("bnnlib.")}
    return found


def test_no_part_imports_one_above_or_beside_it():
    climbing = []
    for path in LIBRARY.rglob("*.py"):
        part = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for name in imports(path):
            other = name.split(".")[0]
            if other in LEVEL and other != part and LEVEL[other] <= LEVEL[part]:
                climbing.append(f"{path.relative_to(LIBRARY)} imports {name}")
    assert not climbing, "\n".join(climbing)


def test_every_part_has_its_place():
    parts = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} == set(LEVEL)
    files = [path for path in LIBRARY.iterdir() if path.is_file()]
    assert len(files) <= 9, "the first glance at the library shows its core and its wings, and no more"


def test_no_module_bears_the_name_of_what_its_package_gives():
    for package in LIBRARY.rglob("__init__.py"):
        modules = {path.stem for path in package.parent.glob("*.py")}
        given = {name.rsplit(".", 1)[-1] for name in imports(package)}
        assert not modules & given, package


def test_each_folder_lists_its_modules():
    for package in LIBRARY.glob("*/__init__.py"):
        listed = re.findall(r"^``(\w+)`` ", ast.get_docstring(ast.parse(package.read_text())), re.M)
        modules = {path.stem for path in package.parent.glob("*.py")} - {"__init__", "__main__"}
        assert sorted(listed) == sorted(modules), package


def test_there_is_no_circle():
    graph = {}
    for path in LIBRARY.rglob("*.py"):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
        graph[module] = imports(path)
    modules = set(graph)
    needed = {
        module: {name if name in modules else name.rpartition(".")[0] for name in names} & modules
        for module, names in graph.items()
    }
    while leaves := [module for module, names in needed.items() if not names & set(needed)]:
        for module in leaves:
            del needed[module]
    assert not needed, f"these import each other: {sorted(needed)}"


def test_nothing_speaks_of_modules_that_have_moved():
    """Paths of the library in prose exist."""
    for path in [*paths.ROOT.glob("*.md"), *LIBRARY.rglob("*.md"), *LIBRARY.rglob("*.py"), paths.DATA / "README.md"]:
        for name in re.findall(r"\bbnnlib/[\w/]+\.py\b", path.read_text()):
            assert (paths.ROOT / name).exists(), f"{path} speaks of {name}"


@pytest.mark.parametrize("name", ["nn.quantizers", "nn.binarization", "energy.cost"])
def test_examples_in_docstrings_are_true(name):
    module = importlib.import_module(f"bnnlib.{name}")
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_an_edit_in_any_wing_is_seen_by_what_compares_the_library(tmp_path, monkeypatch):
    """``reproduce --resume`` skips what nothing has changed for; a cluster refuses workers with other code."""
    page = paths.ROOT / "notebooks" / "08_packed_execution.ipynb"
    wing = tmp_path / "packed"
    wing.mkdir()
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(bnnlib, "__file__", str(tmp_path / "__init__.py"))
    seen = set()
    for text in ("a = 1", "a = 2"):
        (wing / "network.py").write_text(text)
        seen.add((notebooks._fingerprint(page, {}), cluster.code_version.__wrapped__()))
    assert len(seen) == 2
