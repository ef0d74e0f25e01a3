"""The energy model: what a network executes, and what that costs by a table of energies per operation.

==============  ====================================================================
``profiling``   operations, vector lengths and bits per layer, of a network or of a spec
``recording``   what a network multiplies, read from one forward pass
``tables``      energy tables of ``data/energy``
``cost``        energy of the multiply-accumulates
``memory``      energy of memory accesses, reported separately
``breakdown``   the table that ``bnn cost`` prints
==============  ====================================================================
"""

from bnnlib.energy.cost import UJ_PER_FJ, energy_fj, energy_uj
from bnnlib.energy.memory import bit_fj, memory_fj, memory_uj
from bnnlib.energy.profiling import profile
from bnnlib.energy.tables import COLUMNS, HOW, Table, load_table, table_names

__all__ = [
    "COLUMNS", "HOW", "UJ_PER_FJ", "Table", "bit_fj", "energy_fj", "energy_uj", "load_table", "memory_fj", "memory_uj",
    "profile", "table_names",
]  # fmt: skip
