"""What is to be as high as it can be, item by item. Torch-free.

Shape legend: N items.
"""

import numpy as np
from numpy.typing import NDArray

ACCURACY, MACRO_F1 = "accuracy", "macro_f1"


def item_scores(predicted_N: NDArray[np.int64], labels_N: NDArray[np.int64], objective: str) -> NDArray[np.float64]:
    """Scores per item, whose mean is the objective and whose paired differences have its standard error.

    Right or wrong for `accuracy`. `macro_f1` is no mean over items; its jackknife pseudo-values N F - (N - 1) F(-i)
    stand for it (Tukey, 1958; Efron and Tibshirani, 1993, section 11.5). Classes without an item do not count.

    Shape:
        predicted_N, labels_N, result: [N]
    """
    if objective == ACCURACY:
        return np.asarray(predicted_N == labels_N, np.float64)
    number, size = len(labels_N), int(max(labels_N.max(), predicted_N.max())) + 1
    right_N = predicted_N == labels_N
    hits_C = np.bincount(labels_N[right_N], minlength=size)
    # Twice the hits over all that was said and all that is: 2 TP / (2 TP + FP + FN).
    sum_C = np.bincount(labels_N, minlength=size) + np.bincount(predicted_N, minlength=size)
    counts_C = np.bincount(labels_N, minlength=size) > 0
    f1_C = np.where(counts_C, 2 * hits_C / np.maximum(sum_C, 1), 0.0)
    num_classes = counts_C.sum()
    # Without item i its label's class and its prediction's class change, and no other.
    own_N = 2 * (hits_C[labels_N] - right_N) / np.maximum(sum_C[labels_N] - 1 - right_N, 1)
    said_N = 2 * hits_C[predicted_N] / np.maximum(sum_C[predicted_N] - 1, 1) * counts_C[predicted_N]
    change_N = own_N - f1_C[labels_N] + np.where(right_N, 0.0, said_N - f1_C[predicted_N])
    total = f1_C.sum()
    without_N = (total + change_N) / num_classes
    pseudo_N = number * total / num_classes - (number - 1) * without_N
    # Their mean is the jackknife's estimate, a little above the score; what is told is the score.
    return np.asarray(pseudo_N + (total / num_classes - pseudo_N.mean()))
