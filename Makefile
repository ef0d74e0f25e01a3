# `make` lists the targets. Every one first sees to its environment: an active virtual or conda environment is used as it
# is (base does not count), otherwise .venv is made here from requirements.lock.
#
# Variables: PYTHON=python3.13 makes .venv with that one; ARGS="--only 05" goes on to `bnn reproduce` or pytest;
# WORKERS=4 runs the tests in four processes.

PYTHON ?= python3.12 python3.13 python3.11 python3
ARGS ?=
WORKERS ?= 2

ACTIVE := $(shell \
	if [ -n "$$VIRTUAL_ENV" ] && [ -x "$$VIRTUAL_ENV/bin/python" ]; then \
		[ "$$VIRTUAL_ENV" -ef .venv ] || echo "$$VIRTUAL_ENV"; \
	elif [ -n "$$CONDA_PREFIX" ] && [ "$$CONDA_DEFAULT_ENV" != base ] && [ -x "$$CONDA_PREFIX/bin/python" ]; then \
		echo "$$CONDA_PREFIX"; \
	fi)
PY := $(if $(ACTIVE),"$(ACTIVE)/bin/python",.venv/bin/python)

.PHONY: help reproduce test lab full report lint clean environment FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

reproduce: environment ## run every notebook, draw every figure; the report of it goes to build/html (minutes)
	$(PY) -m bnnlib.cli reproduce $(ARGS)

test: environment ## run the tests, and compare every output in the notebooks with a fresh run (minutes)
	@# One thread a worker, or they get in each other's way; loadfile: the cells of a notebook share a kernel, so they
	@# stay on one worker; an inherited MPLBACKEND would drop the figures from the outputs. Committed figures stay as they are.
	unset MPLBACKEND; BNN_FIGURES=build/figures OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(WORKERS) --dist loadfile --nbval tests notebooks $(ARGS)

lab: environment ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks/00_index.ipynb

full: environment ## as reproduce, but train the long runs anew (hours; needs the data sets, see data/README.md)
	$(PY) -m bnnlib.cli reproduce --mode full $(ARGS)

report: environment ## build the report from the committed notebooks as they are (seconds): build/html/index.html
	$(PY) -m bnnlib.cli report $(ARGS)

lint: environment ## check the style, and which part of the library imports which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -q tests/test_layers.py

clean: ## delete what was built; data sets, .venv and the checkpoints of unfinished trainings stay
	rm -rf .pytest_cache .ruff_cache .hypothesis
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name checkpoints -exec rm -rf {} +
	find bnnlib tests notebooks -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

ifeq ($(ACTIVE),)

environment: .venv/.installed

# The stamp holds the path: a moved or copied folder is installed again.
ifneq ($(shell cat .venv/.installed 2>/dev/null),$(CURDIR))
.venv/.installed: FORCE
endif

.venv/.installed: requirements.lock pyproject.toml
	@rm -f $@; good='import ensurepip, sys; sys.exit(sys.version_info < (3, 11))'; \
	if ! .venv/bin/python -c "$$good" 2>/dev/null; then \
		for python in $(PYTHON); do \
			if "$$python" -c "$$good" 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "make: no Python 3.11 or newer with venv among: $(PYTHON); install one, or name it: make PYTHON=/path/to/python" >&2; \
			exit 2; \
		fi; \
		echo "make: new .venv with $$("$$found" --version)"; \
		"$$found" -m venv --clear .venv || exit 2; \
	fi
	@echo "make: packages of requirements.lock go to .venv; the first time that takes some minutes"
	.venv/bin/python -m pip install --disable-pip-version-check -c requirements.lock -e '.[notebooks,test]'
	@echo "$(CURDIR)" > $@

else

# What this environment lacks is added; what it has keeps its version (pip is held to it) or make stops.
environment:
	@missing=$$($(PY) -c "$$PROBE") || exit 2; \
	if [ -n "$$missing" ]; then \
		echo "make: adding to the active environment $(ACTIVE), which keeps all versions that it has: $$missing"; \
		$(PY) -m pip install --disable-pip-version-check -c build/constraints.txt -e '.[notebooks,test]' || { \
			echo "make: $(ACTIVE) cannot be completed without changing it; deactivate it and let make create .venv, or: conda env create -f environment.yml" >&2; \
			exit 2; \
		}; \
	fi

endif

# Prints what pyproject.toml asks for and the environment lacks, and then writes build/constraints.txt: the installed
# version of a package that is there, else that of requirements.lock.
define PROBE
import sys
if sys.version_info < (3, 11):
    sys.exit(f"make: {sys.executable} is Python {sys.version.split()[0]}, too old; 3.11 or newer is needed, or none active")
import importlib.util, pathlib, re, tomllib
from importlib.metadata import distributions
normal = lambda name: re.sub("[-_.]+", "-", name).lower()
here = {normal(d.name): d.version for d in distributions() if d.name}
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
wanted = list(dict.fromkeys(sum(project["optional-dependencies"].values(), project["dependencies"])))
missing = [name for name in wanted if normal(name) not in here]
sys.path.remove("")
spec = importlib.util.find_spec("bnnlib")
if spec is None or pathlib.Path(spec.origin).parent.resolve() != pathlib.Path("bnnlib").resolve():
    missing.append("bnnlib (this folder)")
if missing:
    lock = pathlib.Path("requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lock if not line.startswith("#"))
    pins = {normal(name): pin for name, pin in pins.items()} | here
    pins.pop("bnnlib", None)
    pathlib.Path("build").mkdir(exist_ok=True)
    pathlib.Path("build/constraints.txt").write_text("".join(f"{n}=={v}\n" for n, v in pins.items()))
print(*missing, sep=", ")
endef
export PROBE
