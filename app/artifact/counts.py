"""Whether two sets of counts come from the same shares.

Shape legend: K kinds that are counted, L cells that are compared.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Double = NDArray[np.float64]

# The chi-square approximation wants so many expected in every cell (Cochran 1954); rarer kinds are counted together.
MIN_EXPECTED = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Pearson's statistic of homogeneity.

    Args:
        statistic: chi-square, when the shares are equal.
        degrees: of freedom.
        cells_2L: what was compared, the pooled kinds as one cell at the end.
        pooled: places of the kinds that were counted together.
    """

    statistic: float
    degrees: int
    cells_2L: Double
    pooled: tuple[int, ...]


def homogeneity(first_K: Ints, second_K: Ints) -> Compared | None:
    """Pearson's statistic, rare kinds pooled; None where they are too rare to be compared.

    Shape:
        first_K: [K]
        second_K: [K]
    """
    counts_2K = np.stack([first_K, second_K]).astype(np.float64)
    sizes_2, total = counts_2K.sum(1), float(counts_2K.sum())
    if (sizes_2 == 0).any():
        return None
    number_K = counts_2K.sum(0)
    rare_K = number_K * sizes_2.min() / total < MIN_EXPECTED
    cells_2L = np.column_stack([counts_2K[:, ~rare_K], counts_2K[:, rare_K].sum(1)])
    cells_2L = cells_2L[:, cells_2L.sum(0) > 0]
    if cells_2L.shape[1] < 2:
        return None
    expected_2L = np.outer(sizes_2, cells_2L.sum(0)) / total
    statistic = float((np.square(cells_2L - expected_2L) / expected_2L).sum())
    pooled = tuple(np.flatnonzero(rare_K & (number_K > 0)).tolist())
    return Compared(statistic, cells_2L.shape[1] - 1, cells_2L, pooled)
