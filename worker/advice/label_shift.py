"""Whether two datasets have their classes equally often. No torch.

Shape legend: K classes of either dataset.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact import counts

Ints = NDArray[np.int64]


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

    found = counts.homogeneity(first_K, second_K)
    if found is None:
        return None
    strength = float(np.sqrt(found.statistic / found.cells_2L.sum()))
    pooled = tuple(names[place] for place in found.pooled)
    return Shift(found.statistic, found.degrees, float(chdtrc(found.degrees, found.statistic)), strength, pooled)
