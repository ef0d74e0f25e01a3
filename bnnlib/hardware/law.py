"""Energy per MAC over the vector length N: a + b log2(N)/N + c/N, fitted to the rows of a table.

a is what a product and its share of an endless tree cost; what a unit has once (the accumulator, the last carries, as
many as the sum has bits) is shared by N products.
"""

import numpy as np
import pandas as pd


def fit(rows: pd.DataFrame) -> pd.DataFrame:
    """The law of each pair of a table.

    Args:
        rows: ``activation``, ``weight``, ``vector_length``, ``energy_fj``.

    Returns:
        A row per pair: ``a``, ``b``, ``c`` in fJ, and ``worst``, the largest deviation as a share of the energy. With
        fewer than four lengths ``b`` is 0, with one ``c`` too.
    """
    found = {}
    for pair, own in rows.groupby(["activation", "weight"], sort=False):
        n, energy = own["vector_length"].to_numpy(float), own["energy_fj"].to_numpy(float)
        terms = np.stack([np.ones_like(n), np.log2(n) / n, 1 / n], 1)
        if len(n) < 4:
            terms[:, 1] = 0
        if len(n) < 2:
            terms[:, 2] = 0
        solution = np.linalg.lstsq(terms / energy[:, None], np.ones_like(n), rcond=None)[0]  # relative errors
        found[pair] = [*solution, float(np.abs(terms @ solution / energy - 1).max())]
    index = pd.MultiIndex.from_tuples(found, names=["activation", "weight"])
    return pd.DataFrame(list(found.values()), index, ["a", "b", "c", "worst"])
