"""One thread and repeatable examples, so that a failure can be had again."""

import os
import shutil

import pytest
import torch
from hypothesis import settings

from bnnlib.cli import commands

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")
torch.set_num_threads(1)


@pytest.fixture
def bnn(monkeypatch, capsys):
    """Run `bnn ...` in this process; gives (exit status, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bnn", *arguments])
        status = 0
        try:
            commands.main()
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def browser():
    """Chromium as the system has it (or $CHROMIUM names it), driven by playwright, which downloads none."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if not found:
        pytest.skip("no Chromium here: install the system's package chromium, or set CHROMIUM to one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root has no sandbox
        yield started
        started.close()
