"""Probabilities -> labels and scores, best first.

Shape legend: C classes, K of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Score:
    """One class and its probability."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image.

    Args:
        label: the most probable class; None when its score is under the caller's threshold.
        score: of the most probable class.
        scores: the best classes, highest first; equal scores in the order of the model's labels.
    """

    label: str | None
    score: float
    scores: tuple[Score, ...]


def order(probabilities_C: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """The best classes, highest first; equal scores in the order of the model's labels.

    Shape:
        probabilities_C: [..., C]
        result: [..., K], K at most C
    """
    return np.argsort(-probabilities_C, axis=-1, kind="stable")[..., :top_k]


def rank(
    probabilities_C: NDArray[np.float32], labels: Sequence[str], top_k: int, threshold: float | None
) -> Prediction:
    """One image's probabilities -> its best classes.

    Shape:
        probabilities_C: [C]
    """
    best_K = order(probabilities_C, top_k)
    # As lists: numbers taken from an array one by one cost several times as much.
    pairs = zip(best_K.tolist(), probabilities_C[best_K].tolist(), strict=True)
    scores = tuple(Score(labels[index], score) for index, score in pairs)
    best = int(probabilities_C.argmax())
    score = float(probabilities_C[best])
    return Prediction(None if threshold is not None and score < threshold else labels[best], score, scores)
