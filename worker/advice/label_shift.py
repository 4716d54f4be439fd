"""Whether two datasets have their classes equally often. No torch.

Shape legend: K classes of either dataset.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# The chi-square approximation wants so many expected in every cell (Cochran 1954); rarer classes are counted together.
MIN_EXPECTED = 5.0


@dataclass(frozen=True)
class Shift:
    """Chi-square test of homogeneity.

    Args:
        statistic: Pearson's.
        degrees: of freedom.
        p: probability of one as large when the shares are equal.
        cramers_v: strength from 0 (equal shares) to 1 (no class in common).
        pooled: names of classes that were counted together.
    """

    statistic: float
    degrees: int
    p: float
    cramers_v: float
    pooled: tuple[str, ...]


def homogeneity(first_K: Ints, second_K: Ints, names: tuple[str, ...]) -> Shift | None:
    """Pearson's chi-square test on counts of different pictures; None where classes are too rare to be compared.

    Shape:
        first_K: [K]
        second_K: [K]
    """
    # Here, since it costs a fifth of a second that most advice does not need.
    from scipy.special import chdtrc

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
    degrees = cells_2L.shape[1] - 1
    pooled = tuple(names[place] for place in np.flatnonzero(rare_K & (number_K > 0)))
    return Shift(statistic, degrees, float(chdtrc(degrees, statistic)), float(np.sqrt(statistic / total)), pooled)
