"""What a probe is expected to reach on new images, with an interval that counts copies of one picture once. Torch-free.

Shape legend: N images, G groups (copies of one picture), B resamples.
"""

import numpy as np
from numpy.typing import NDArray

from worker.scores.intervals import Interval, clopper_pearson

NUM_RESAMPLES = 2000
# With fewer groups a bootstrap is too narrow.
MIN_SAMPLES = 30


def accuracy(right_N: NDArray[np.bool_], groups_N: NDArray[np.integer], seed: int) -> Interval:
    """Share of images named right, and its 95 % percentile interval over resampled groups.

    A resample draws as many groups as there are, with replacement. What it scores depends only on how often each kind
    of group (its size, how many of it are right) is drawn, so those numbers are drawn, from a multinomial: the same
    bootstrap in memory that does not grow with N. Below 30 groups, or where every resample says the same, the exact
    binomial interval (Clopper and Pearson) of as many pictures as there are groups.

    Shape:
        right_N, groups_N: [N]

    Raises:
        ValueError: no image, or other than one result each.
    """
    if not len(right_N) or right_N.shape != groups_N.shape:
        raise ValueError(f"Expected one result per image and at least one, found {right_N.shape} for {groups_N.shape}.")
    value = float(right_N.mean())
    _, group_N = np.unique(groups_N, return_inverse=True)
    size_G = np.bincount(group_N)
    hits_G = np.bincount(group_N, weights=right_N).astype(np.int64)
    kinds_K2, count_K = np.unique(np.stack([size_G, hits_G], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn_BK = rng.multinomial(len(size_G), count_K / len(size_G), size=NUM_RESAMPLES)
    total_B2 = drawn_BK @ kinds_K2
    low, high = map(float, np.quantile(total_B2[:, 1] / total_B2[:, 0], [0.025, 0.975]))
    if len(size_G) >= MIN_SAMPLES and high > low:
        return Interval(value, min(low, value), max(high, value), "bootstrap")
    low, high = clopper_pearson(round(value * len(size_G)), len(size_G))
    return Interval(value, min(low, value), max(high, value), "clopper_pearson")
