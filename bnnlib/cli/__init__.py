"""The command ``bnn``.

============  ==================================================================
``commands``  the entry point, and the commands on energy, runs, claims, data, notebooks
``bench``     ``bnn bench``
``hardware``  ``bnn hardware``
``packed``    ``bnn verify``, ``bnn predict``, ``bnn export``
============  ==================================================================
"""

from bnnlib.cli.commands import main

__all__ = ["main"]
