"""Confident learning: how often a label is confidently another class (Northcutt et al., arXiv 1911.00068). No torch.

Shape legend: N items, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Confident:
    """Thresholds, counts and what each item confidently is.

    Args:
        threshold_C: mean probability of a class over the items that are labelled with it (equation 2); infinite for a
            class without items.
        joint_CC: estimated number of items by label and true class; rows sum to the classes' sizes (equation 3).
        class_N: the most probable of the classes whose threshold is met (equation 1); the label where none is.
    """

    threshold_C: Double
    joint_CC: Double
    class_N: Ints


def learn(probs_NC: Double, labels_N: Ints) -> Confident:
    """Counts with the class's own thresholds, so a class that the model is never sure of counts as well.

    Shape:
        probs_NC: [N, C], of a model that has not learned the item
        labels_N: [N]
    """
    num_classes = probs_NC.shape[1]
    size_C = np.bincount(labels_N, minlength=num_classes)
    own_N = probs_NC[np.arange(len(labels_N)), labels_N]
    mean_C = np.bincount(labels_N, weights=own_N, minlength=num_classes) / np.maximum(size_C, 1)
    threshold_C = np.where(size_C > 0, mean_C, np.inf)
    above_NC = np.where(probs_NC >= threshold_C, probs_NC, -1.0)
    met_N = above_NC.max(1) >= 0
    class_N = np.where(met_N, above_NC.argmax(1), labels_N)
    counts_CC = np.zeros((num_classes, num_classes))
    np.add.at(counts_CC, (labels_N[met_N], class_N[met_N]), 1.0)
    # A class of which no item is confidently anything keeps its labels.
    counted_C = counts_CC.sum(1)
    alone = np.flatnonzero(counted_C == 0)
    counts_CC[alone, alone] = 1.0
    joint_CC = counts_CC / counts_CC.sum(1, keepdims=True) * size_C[:, None]
    return Confident(threshold_C, joint_CC, class_N.astype(np.int64))
