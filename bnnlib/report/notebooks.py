"""Run the notebooks in order, each with checked parameters and the same Python: executed copies go to build/.

The committed notebook is only read. Parameters are the lines of the cell tagged ``parameters``, such as
``seeds: list[int] = [0, 1]  # seeds of the live training``.

A value that arrives as text is converted by the declared type, and refused if it does not fit (papermill itself would
only warn of an unknown name). Types: bool, int, float, str, list[...] of these, and each of them with ``| None``.
"""

import ast
import hashlib
import io
import json
import math
import re
import sys
import time
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import bnnlib
from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import read_json, write_json

MODES = ("quick", "full")


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    default: object
    help: str


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook: ``status`` is done, failed or skipped; ``error`` is one line."""

    name: str
    status: str
    minutes: float = 0.0
    error: str = ""

    def __str__(self) -> str:
        return f"{self.name:24} {self.status:8} {self.minutes:5.1f} min  {self.error}".rstrip()


def find(names: Iterable[str] | None = None, folder: Path | None = None) -> list[Path]:
    """The numbered notebooks in order; with ``names`` only those (``05``, ``05_lenet_mnist`` or a path to it).

    Raises:
        UserError: there is no such notebook.
    """
    folder = folder or paths.NOTEBOOKS
    every = sorted(path for path in folder.glob("*.ipynb") if re.match(r"\d\d_", path.name))
    if not every:
        raise UserError(f"no numbered notebook in {folder}; restore them with git checkout")
    if names is None:
        return every
    chosen = set()
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        found = [path for path in every if stem in (path.stem, path.stem[:2])]
        if not found:
            raise UserError(f"no notebook {name!r}; there are {', '.join(path.stem for path in every)}")
        chosen.update(found)
    return [path for path in every if path in chosen]


def read(path: Path) -> dict:
    """The notebook as plain JSON: ``cells``, ``metadata`` and so on; the sources of its cells are joined."""
    notebook = read_json(path)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UserError(f"{path} is not a notebook; restore it with git checkout")
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def parameters_of(path: Path) -> dict[str, Parameter]:
    """The declared parameters of a notebook by name; empty if it has no cell for them.

    Raises:
        UserError: more than one cell has the tag, or a line is not ``name: type = literal``.
    """
    cells = [cell["source"] for cell in read(path)["cells"] if "parameters" in tags(cell)]
    if len(cells) > 1:
        raise UserError(f"{path.name} has {len(cells)} cells tagged parameters; leave one")
    source, found = "".join(cells), {}
    try:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        helps = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        for line in ast.parse(source).body:
            if not isinstance(line, ast.AnnAssign) or line.value is None:
                raise ValueError(f"line {line.lineno}")
            name, kind = ast.unparse(line.target), ast.unparse(line.annotation)
            default = convert(Parameter(name, kind, None, ""), ast.literal_eval(line.value))
            found[name] = Parameter(name, kind, default, helps.get(line.end_lineno, ""))
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise UserError(f"{path.name}: parameters are lines `name: type = literal  # help`, not {error}") from error
    return found


def convert(parameter: Parameter, value: object) -> object:
    """``value`` in the declared type; text (from a command line) is parsed, anything else is checked, or refused."""
    try:
        converted = _convert(parameter.type, value)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"parameter {parameter.name} is {parameter.type}, not {value!r}") from error
    if parameter.name == "mode" and converted not in MODES:
        raise UserError(f"mode {value!r} is unknown; use quick or full")
    return converted


def _convert(kind: str, value: object) -> object:
    text = isinstance(value, str)
    if kind.endswith(" | None"):
        return None if value is None or (text and value.lower() == "none") else _convert(kind[:-7], value)
    if kind.startswith("list[") and kind.endswith("]"):
        if text:  # 0,1,2 or [0, 1, 2]
            value = [item.strip() for item in value.strip("[]").split(",") if item.strip()]
        return [_convert(kind[5:-1], item) for item in _exactly(value, list)]
    if kind == "bool":
        return {"true": True, "1": True, "false": False, "0": False}[value.lower()] if text else _exactly(value, bool)
    if kind == "int":
        return int(value) if text else _exactly(value, int)
    if kind == "float":
        number = float(value if text else _exactly(value, float, int))
        if math.isfinite(number):
            return number
        raise ValueError(value)
    if kind == "str":
        return _exactly(value, str)
    raise UserError(f"parameter type {kind!r} is unknown; use bool, int, float, str, list[...] or ... | None")


def _exactly(value: object, *types: type) -> object:
    if type(value) not in types:  # not isinstance: True is no int here
        raise TypeError(value)
    return value


def _choose(chosen: list[Path], given: Mapping[str, object]) -> dict[Path, dict[str, object]]:
    """The given parameters, converted, for every notebook that declares them; refused if none does."""
    declared = {path: parameters_of(path) for path in chosen}
    known = sorted({name for parameters in declared.values() for name in parameters} | {"mode"})
    for name in given:
        if name not in known:
            raise UserError(f"no notebook of this run has a parameter {name!r}; known: {', '.join(known)}")
    return {
        path: {name: convert(parameters[name], value) for name, value in given.items() if name in parameters}
        for path, parameters in declared.items()
    }


def run_all(
    names: Iterable[str] | None = None, parameters: Mapping[str, object] | None = None, mode: str = "quick",
    resume: bool = False, out: Path | None = None, progress: bool = True, folder: Path | None = None,
) -> list[Outcome]:  # fmt: skip
    """Run notebooks in order: executed copies to OUT/notebooks, the state to OUT/reproduce.json.

    A notebook that fails does not stop the others. With ``resume``, notebooks that an earlier call finished with the
    same code and parameters are skipped. The working folder is that of the notebooks, as in JupyterLab and nbval.

    Raises:
        UserError: before anything runs, for an unknown notebook or parameter, or a value that does not fit.
    """
    chosen, out = find(names, folder), Path(out or paths.BUILD).absolute()
    convert(Parameter("mode", "str", None, ""), mode)
    settings = _choose(chosen, {"mode": mode} | dict(parameters or {}))
    prints = {path: _fingerprint(path, settings[path]) for path in chosen}
    state_file = out / "reproduce.json"
    state = read_json(state_file) if state_file.exists() else {}
    if not resume:
        state = {name: entry for name, entry in state.items() if name not in {path.stem for path in chosen}}

    outcomes = []
    for path in chosen:
        name, start, copy = path.stem, time.monotonic(), out / "notebooks" / path.name
        if state.get(name, {}).get("fingerprint") == prints[path] and copy.exists():
            outcome = Outcome(name, "skipped")
        else:
            state.pop(name, None)
            write_json(state_file, state)  # before the run: a killed batch knows that this one is not done
            error = execute(path, copy, settings[path], bar=progress)
            outcome = Outcome(name, "failed" if error else "done", (time.monotonic() - start) / 60, error)
            if not error:
                state[name] = {"fingerprint": prints[path], "minutes": round(outcome.minutes, 2)}
                write_json(state_file, state)
        outcomes.append(outcome)
        if progress:
            print(outcome, flush=True)
    return outcomes


def execute(path: Path, copy: Path, parameters: Mapping[str, object], bar: bool = False) -> str:
    """Run one notebook in its own folder and write the executed copy; return what went wrong, in one line, or ''."""
    import papermill  # seconds to import, and only a run needs it

    write_json(copy, {"cells": []})  # refuses a folder that cannot be written, before anything runs
    try:
        papermill.execute_notebook(
            path, copy, parameters=dict(parameters), kernel_name="python3", language="python", cwd=path.parent,
            kernel_manager_class=_this_python(), coalesce_streams=True,
            progress_bar={"desc": path.stem, "leave": False, "disable": None} if bar else False,
        )  # fmt: skip
    except Exception as error:  # a cell, a dead kernel, a full disk: whatever one notebook meets, the others still run
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        return f"{_place(copy)}: {name}: {_first_line(text)}"
    return ""


def _place(copy: Path) -> str:
    """Where a failed run stopped: the last cell that was started, counted from 1 as in the committed notebook."""
    not_ours = {"injected-parameters", "papermill-error-cell-tag"}
    ours = [cell for cell in read(copy)["cells"] if not not_ours & set(tags(cell))]
    started = [i for i, cell in enumerate(ours) if cell["metadata"].get("papermill", {}).get("start_time")]
    if not started:
        return "before the first cell"
    prose = "\n".join(cell["source"] for cell in ours[: started[-1]] if cell["cell_type"] == "markdown")
    headings = re.findall(r"^#+ +(.+)$", prose, re.M)
    under = f" under {headings[-1].strip()!r}" if headings else ""
    return f"cell {started[-1] + 1}{under} (`{_first_line(ours[started[-1]]['source'])}`)"


def _first_line(text: str) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()  # without colours
    return lines[0].strip()[:160] if lines else ""


@cache
def _this_python() -> type:
    """A kernel manager for the running interpreter, whatever a kernel named python3 means on this machine."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # an inherited Agg drops inline figures
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning, otherwise on the terminal
    }
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=argv, env=environment, display_name="Python 3 (ipykernel)", language="python")

    return ThisPython


def _fingerprint(path: Path, parameters: Mapping[str, object]) -> str:
    """Hash of all that decides what a notebook does: its code, its parameters and the library."""
    library = [file.read_text() for file in sorted(Path(bnnlib.__file__).parent.rglob("*.py"))]
    cells = [[cell["cell_type"], cell["source"]] for cell in read(path)["cells"]]
    return hashlib.sha256(json.dumps([cells, dict(parameters), library], sort_keys=True).encode()).hexdigest()


def versions() -> str:
    """The versions that decide the numbers, for the last code cell of a notebook (tag it nbval-ignore-output)."""
    packages = [f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy", "pandas", "matplotlib")]
    return ", ".join([f"bnnlib {bnnlib.__version__}", f"python {sys.version.split()[0]}", *packages])
