"""What a probe is expected to reach on new images, with an interval that counts copies of one picture once. Torch-free.

Shape legend: N images, G groups (copies of one picture), R draws of folds, B resamples.
"""

import numpy as np
from numpy.typing import NDArray

from worker.scores.intervals import Interval, clopper_pearson

NUM_RESAMPLES = 2000
# With fewer groups a bootstrap is too narrow.
MIN_SAMPLES = 30


def accuracy(right_RN: NDArray[np.bool_], groups_N: NDArray[np.integer], seed: int) -> Interval:
    """Share of images named right, and its 95 % percentile interval over resampled groups.

    The value is the mean of all draws of the folds. Draws are no more pictures, so a resample scores one draw, on as
    many groups as there are, with replacement: the interval has the luck of the pictures and of the folds in it, and is
    no narrower for more draws. What a resample scores depends only on how often each kind of group (its size, how many
    of it are right) is drawn, so those numbers are drawn, from a multinomial: the same bootstrap in memory that does
    not grow with N. Below 30 groups, or where every resample says the same, the exact binomial interval (Clopper and
    Pearson) of as many pictures as there are groups.

    Shape:
        right_RN: [R, N], R draws; groups_N: [N]

    Raises:
        ValueError: no image or draw, or other than one result each.
    """
    if not right_RN.size or right_RN.shape[1:] != groups_N.shape:
        raise ValueError(
            f"Expected one result per image and draw and at least one, found {right_RN.shape} for {groups_N.shape}."
        )
    value = float(right_RN.mean())
    _, group_N = np.unique(groups_N, return_inverse=True)
    num_groups = int(group_N.max()) + 1
    rng, num_draws = np.random.default_rng(seed), len(right_RN)
    accuracy_B = np.concatenate(
        [_resampled(right_N, group_N, -(-NUM_RESAMPLES // num_draws), rng) for right_N in right_RN]
    )
    low, high = map(float, np.quantile(accuracy_B, [0.025, 0.975]))
    if num_groups >= MIN_SAMPLES and high > low:
        return Interval(value, min(low, value), max(high, value), "bootstrap")
    low, high = clopper_pearson(round(value * num_groups), num_groups)
    return Interval(value, min(low, value), max(high, value), "clopper_pearson")


def _resampled(
    right_N: NDArray[np.bool_], group_N: NDArray[np.integer], num_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Accuracies of one draw of folds on resampled groups; `group_N` from 0 on without gaps."""
    size_G = np.bincount(group_N)
    hits_G = np.bincount(group_N, weights=right_N).astype(np.int64)
    kinds_K2, count_K = np.unique(np.stack([size_G, hits_G], axis=1), axis=0, return_counts=True)
    total_B2 = rng.multinomial(len(size_G), count_K / len(size_G), size=num_resamples) @ kinds_K2
    return np.asarray(total_B2[:, 1] / total_B2[:, 0])
