"""Scores of a classifier on labelled items. Torch-free.

Which classes count: macro averages run over the classes that have at least one item in the evaluated set, so a class
without test images neither helps nor hurts; its per-class scores are null (``None``). Where every class has items this
equals scikit-learn with ``zero_division=0``; balanced accuracy equals it always. A class that has items but is never
predicted has precision 0 and F1 0 (not null): the model was asked about it and never named it.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

_MAX_CONFUSED_PAIRS = 10


class ClassScores(TypedDict):
    """One class; scores are null when no item of it was evaluated."""

    name: str
    num_samples: int
    precision: float | None
    recall: float | None
    f1: float | None


class ConfusedPair(TypedDict):
    """How many items of class ``label`` were called ``predicted``, and which share of the class that is."""

    label: str
    predicted: str
    num_samples: int
    fraction: float


@dataclass(frozen=True)
class ClassificationMetrics:
    """Scores of one evaluated set; ``confusion_CC`` has a row per true class and a column per predicted class."""

    num_samples: int
    accuracy: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    top_5_accuracy: float | None
    nll: float
    worst_class_recall: float
    per_class: list[ClassScores]
    most_confused: list[ConfusedPair]
    class_names: tuple[str, ...]
    confusion_CC: NDArray[np.int64]

    def flat(self) -> dict[str, float | None]:
        """Scalar scores by name, for a job's ``metrics`` (the caller adds the prefix of the split).

        ``top_5_accuracy`` is null below six classes, where it says nothing.
        """
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "top_5_accuracy": self.top_5_accuracy,
            "nll": self.nll,
            "worst_class_recall": self.worst_class_recall,
        }

    def confusion(self) -> dict[str, list[str] | list[list[int]]]:
        """Confusion matrix as the report shows it: ``{labels, matrix}``, rows are true classes."""
        return {"labels": list(self.class_names), "matrix": self.confusion_CC.tolist()}


def confusion_matrix(
    labels_N: NDArray[np.integer], predicted_N: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Counts of (true class, predicted class).

    Shape:
        returns [C, C].
    """
    pairs_N = labels_N.astype(np.int64) * num_classes + predicted_N
    counts_CC: NDArray[np.int64] = np.bincount(pairs_N, minlength=num_classes**2).reshape(num_classes, num_classes)
    return counts_CC


def class_scores(
    confusion_CC: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of every class; 0 where a ratio is undefined.

    Shape:
        confusion_CC: [..., C, C]; each result [..., C].
    """
    hits = np.diagonal(confusion_CC, axis1=-2, axis2=-1).astype(np.float64)
    actual, called = confusion_CC.sum(axis=-1), confusion_CC.sum(axis=-2)
    precision = hits / np.maximum(called, 1)
    recall = hits / np.maximum(actual, 1)
    return precision, recall, 2 * hits / np.maximum(actual + called, 1)


def classification(
    probabilities_NC: NDArray[np.floating], labels_N: NDArray[np.integer], class_names: list[str] | tuple[str, ...]
) -> ClassificationMetrics:
    """Score the probabilities of a set of items against their labels.

    Shape:
        probabilities_NC: [N, C], rows sum to 1; labels_N: [N].

    Raises:
        ValueError: when there is no item, or shapes, names and labels do not fit each other.
    """
    num_classes = len(class_names)
    if labels_N.size == 0 or probabilities_NC.shape != (labels_N.size, num_classes):
        raise ValueError(
            f"Expected probabilities [items, {num_classes}] for at least one item, found shape "
            f"{probabilities_NC.shape} and {labels_N.size} labels; pass one row per label."
        )
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        raise ValueError(f"Expected labels from 0 to {num_classes - 1}, found {labels_N.min()} to {labels_N.max()}.")
    predicted_N = probabilities_NC.argmax(axis=1)
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes)
    precision_C, recall_C, f1_C = class_scores(confusion_CC)
    size_C = confusion_CC.sum(axis=1)
    seen_C = size_C > 0
    own_N = probabilities_NC[np.arange(labels_N.size), labels_N].astype(np.float64)
    top_5 = float(((probabilities_NC > own_N[:, None]).sum(axis=1) < 5).mean()) if num_classes > 5 else None
    return ClassificationMetrics(
        num_samples=int(labels_N.size),
        accuracy=float((predicted_N == labels_N).mean()),
        balanced_accuracy=float(recall_C[seen_C].mean()),
        macro_precision=float(precision_C[seen_C].mean()),
        macro_recall=float(recall_C[seen_C].mean()),
        macro_f1=float(f1_C[seen_C].mean()),
        top_5_accuracy=top_5,
        nll=float(-np.log(np.maximum(own_N, np.finfo(np.float64).tiny)).mean()),
        worst_class_recall=float(recall_C[seen_C].min()),
        per_class=[
            ClassScores(
                name=name,
                num_samples=int(size_C[index]),
                precision=float(precision_C[index]) if seen_C[index] else None,
                recall=float(recall_C[index]) if seen_C[index] else None,
                f1=float(f1_C[index]) if seen_C[index] else None,
            )
            for index, name in enumerate(class_names)
        ],
        most_confused=_most_confused(confusion_CC, class_names),
        class_names=tuple(class_names),
        confusion_CC=confusion_CC,
    )


def _most_confused(confusion_CC: NDArray[np.int64], class_names: list[str] | tuple[str, ...]) -> list[ConfusedPair]:
    """Off-diagonal cells with the most items, largest first, ties by the larger share of the class."""
    wrong_CC = confusion_CC - np.diag(np.diagonal(confusion_CC))
    share_CC = wrong_CC / np.maximum(confusion_CC.sum(axis=1, keepdims=True), 1)
    order = np.lexsort((-share_CC.ravel(), -wrong_CC.ravel()))[:_MAX_CONFUSED_PAIRS]
    cells = [divmod(int(cell), len(class_names)) for cell in order]
    return [
        ConfusedPair(
            label=class_names[row],
            predicted=class_names[column],
            num_samples=int(wrong_CC[row, column]),
            fraction=float(share_CC[row, column]),
        )
        for row, column in cells
        if wrong_CC[row, column] > 0
    ]
