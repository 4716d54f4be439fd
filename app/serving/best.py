"""Probabilities -> labels and scores, best first.

Shape legend: C classes.
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


def rank(
    probabilities_C: NDArray[np.float32], labels: Sequence[str], top_k: int, threshold: float | None
) -> Prediction:
    """One image's probabilities -> its best classes.

    Shape:
        probabilities_C: [C]
    """
    order = np.argsort(-probabilities_C, kind="stable")[:top_k]
    scores = tuple(Score(labels[index], float(probabilities_C[index])) for index in order)
    best = int(probabilities_C.argmax())
    score = float(probabilities_C[best])
    return Prediction(None if threshold is not None and score < threshold else labels[best], score, scores)
