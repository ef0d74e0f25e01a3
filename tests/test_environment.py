"""environment.yml (conda), requirements.lock (pip) and pyproject.toml name the same packages in the same versions."""

import os
import re
import tomllib

import pytest
import yaml

import bnnlib
from bnnlib.paths import ROOT

PIP_NAME = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # where conda-forge calls a package otherwise
NOT_LOCKED = {"python", "pip"}  # what pip cannot install
ENVIRONMENT, LOCK, PROJECT = (ROOT / name for name in ("environment.yml", "requirements.lock", "pyproject.toml"))


def normal(name: str) -> str:
    """The name of a package as all of its spellings agree (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wrong_in_lock(lock: str) -> list[str]:
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    names = [normal(line.split("==")[0]) for line in lines]
    wrong = [f"lock: {line!r} is no exact pin" for line in lines if not re.fullmatch(r"[\w.-]+==\d[\w.]*", line)]
    wrong += [f"lock: {name} stands there twice" for name in sorted(set(names)) if names.count(name) > 1]
    return wrong + [f"lock: {name} is torch's to choose" for name in names if re.match("nvidia|cuda|triton", name)]


def wrong_in_environment(environment: str) -> list[str]:
    wrong = []
    last = yaml.safe_load(environment)["dependencies"][-1]
    if not isinstance(last, dict) or last["pip"][-1] != "-e .":
        wrong.append("environment: the last entry has to install the project, pip: [-e .]")
    entries = environment.partition("\ndependencies:\n")[2].splitlines()
    for line in entries:
        entry = line.split("#")[0].strip()
        if entry not in ("", "- pip:") and not re.search(r"# \S+ \S.*; \w", line):
            wrong.append(f"environment: {entry!r} has no comment `# what for; licence`")
    return wrong


def disagreements(environment: str, lock: str, project: str) -> list[str]:
    """What is wrong in the texts of the three files, a line each."""
    wrong = wrong_in_lock(lock) + wrong_in_environment(environment)
    pins = dict(line.split("==") for line in lock.splitlines() if "==" in line and not line.startswith("#"))
    pins = {normal(name): version for name, version in pins.items()}
    metadata = tomllib.loads(project)["project"]
    wanted = {normal(n) for n in sum(metadata["optional-dependencies"].values(), metadata["dependencies"])}

    conda = {}
    entries = yaml.safe_load(environment)["dependencies"]
    for entry in [*entries, *entries[-1].get("pip", [])[:-1]]:
        if isinstance(entry, str) and (name := re.split("[=<>! ]", entry)[0]) not in NOT_LOCKED:
            conda[PIP_NAME.get(name, name)] = entry.removeprefix(name)
    for name in sorted(wanted | set(conda)):
        if name not in pins:
            wrong.append(f"{name}: not in the lock")
        if name not in wanted:
            wrong.append(f"{name}: in environment.yml, not in pyproject.toml")
        elif name not in conda:
            wrong.append(f"{name}: in pyproject.toml, not in environment.yml")
        elif name in pins and conda[name] != f"=={pins[name]}":
            wrong.append(f"{name}: environment.yml has {conda[name]}, the lock =={pins[name]}")
    return wrong


def test_the_files_agree():
    assert disagreements(ENVIRONMENT.read_text(), LOCK.read_text(), PROJECT.read_text()) == []


@pytest.mark.parametrize(
    "file, old, new, named",
    [
        (ENVIRONMENT, "pytorch==2.11.0", "pytorch==2.10.0", "torch: environment.yml has ==2.10.0, the lock =="),
        (ENVIRONMENT, "numpy==", "numpy>=", "numpy: environment.yml has >="),
        (ENVIRONMENT, "- pandas==", "- polars==", "polars: not in the lock"),
        (ENVIRONMENT, "- pandas==", "# pandas==", "pandas: in pyproject.toml, not in environment.yml"),
        (ENVIRONMENT, "; MPL-2.0 and MIT", "", "environment: '- tqdm=="),
        (ENVIRONMENT, "# the Python that runs their cells", "#", "environment: '- ipykernel=="),
        (ENVIRONMENT, "- -e .", "- -e elsewhere", "environment: the last entry"),
        (LOCK, "\nscipy==", "\nscipy>=", "lock: 'scipy>="),
        (LOCK, "\nclick==", "\n# click==", "click: not in the lock"),
        (LOCK, "\nseaborn==", "\nClick==1\nseaborn==", "lock: click stands there twice"),
        (LOCK, "\ntqdm==", "\nnvidia-cublas==13.1\ntqdm==", "lock: nvidia-cublas is torch's to choose"),
        (PROJECT, '"papermill", ', '"papermill", "polars", ', "polars: in pyproject.toml, not in environment.yml"),
        (PROJECT, '"papermill", ', "", "papermill: in environment.yml, not in pyproject.toml"),
    ],
)
def test_a_disagreement_is_found(file, old, new, named):
    texts = [f.read_text().replace(old, new, 1) if f == file else f.read_text() for f in (ENVIRONMENT, LOCK, PROJECT)]
    assert texts != [f.read_text() for f in (ENVIRONMENT, LOCK, PROJECT)]
    assert any(line.startswith(named) for line in disagreements(*texts))


def test_the_python_of_conda_is_allowed_by_the_project():
    python = yaml.safe_load(ENVIRONMENT.read_text())["dependencies"][0]
    oldest = tomllib.loads(PROJECT.read_text())["project"]["requires-python"]
    assert python == "python=3.12"
    assert oldest == ">=3.11"


def test_binder_has_what_the_notebooks_need_in_the_same_versions():
    conda = {
        re.split("[=<>! ]", entry)[0]: entry for entry in yaml.safe_load(ENVIRONMENT.read_text())["dependencies"][:-1]
    }
    binder = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())["dependencies"]
    binder = {re.split("[=<>! ]", entry)[0]: entry for entry in binder}
    assert binder.pop("pytorch-cpu") == conda["pytorch"].replace("pytorch", "pytorch-cpu")
    assert {name: conda.get(name) for name in binder} == binder
    metadata = tomllib.loads(PROJECT.read_text())["project"]
    wanted = {normal(n) for n in metadata["dependencies"] + metadata["optional-dependencies"]["notebooks"]}
    assert wanted - {normal(PIP_NAME.get(name, name)) for name in binder} == {"torch"}
    build = ROOT / ".binder" / "postBuild"
    assert os.access(build, os.X_OK) and "pip install --no-deps -e ." in build.read_text()


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == bnnlib.__version__
    assert citation["preferred-citation"]["doi"] == "10.1109/ICMLA51294.2020.00024"
