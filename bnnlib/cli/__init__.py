"""The command ``bnn``."""

from bnnlib.cli.commands import main

__all__ = ["main"]
