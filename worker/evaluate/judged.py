"""Predictions in which a choice had no part, though it was made on the very same items. Torch-free.

Whoever takes the best of several ways on some items and then quotes its score on them quotes its luck as well (the
winner's curse; Cawley and Talbot, JMLR 11, 2010, section 5). The remedy costs no data and no training: the items are
cut in two, the rule chooses on each half, and the chosen way's predictions count on the other half alone.

Shape legend: W ways, N items, E states of a training, C classes.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.solvers.folds import stratified_group_folds

Ints = NDArray[np.int64]
# Recorded predictions of a training are kept up to so many items; with more, luck moves a score by less than 0.4 %.
MAX_ITEMS = 20_000


def halves(labels_N: Ints, groups_N: Ints, seed: int) -> Ints:
    """0 or 1 per item, by class; copies of one picture are in one half.

    Shape:
        labels_N, groups_N, result: [N]
    """
    return stratified_group_folds(labels_N, groups_N, 2, seed)


def cross_fitted(predicted_WN: Ints, half_N: Ints, choose: Callable[[NDArray[np.bool_]], int]) -> Ints:
    """What each half is called by the way that is chosen on the other half.

    Args:
        predicted_WN: what each way says of each item; also of several draws, which the choice is made for once.
        half_N: 0 or 1.
        choose: the rule: which items it may see -> the way that it takes.

    Shape:
        predicted_WN: [..., W, N]
        half_N: [N]
        result: [..., N]
    """
    first_N, second_N = (predicted_WN[..., choose(half_N != half), :] for half in (0, 1))
    return np.where(half_N == 0, first_N, second_N)


def one_hot(predicted_N: Sequence[int] | Ints, num_classes: int) -> NDArray[np.float64]:
    """Scores whose largest is the prediction: the form in which selections are held.

    Shape:
        predicted_N: [N]
        result: [N, C]
    """
    return np.eye(num_classes)[np.asarray(predicted_N, np.int64)]
