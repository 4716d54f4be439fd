"""Some of many rows."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def some(rows_N: Ints, most: int, seed: int) -> Ints:
    """At most so many rows, drawn by the seed without replacement, in their order.

    Shape:
        rows_N: [N]
    """
    if len(rows_N) <= most:
        return rows_N
    places = np.sort(np.random.default_rng(seed).choice(len(rows_N), most, replace=False))
    return np.asarray(rows_N[places], np.int64)
