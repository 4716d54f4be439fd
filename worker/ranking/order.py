"""The order of candidates: what they reach on the data, and a prior that fades as images come in. Torch-free.

The prior says that backbones differ here by as much as they do on ImageNet, point for point, and counts as
``PRIOR_IMAGES`` pictures. For normal errors that is the posterior mean of each difference when its prior variance is a
30th of what one picture tells: with few pictures a good name counts, with a thousand the data decide. Why 30 and why
point for point is measured in docs/decisions/0012.

Shape legend: N images, G groups (copies of one picture).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRIOR_IMAGES = 30
# How far a difference is from that on ImageNet, root mean square of the pairs that the 30 comes from.
PRIOR_ERROR = 0.042
# One image of 100 between two candidates is exactly one standard error: rounding must not decide.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Entry:
    """One candidate on the images of a stage.

    Args:
        name: of the backbone.
        top1: its accuracy on ImageNet in per cent; None where unknown.
        cost: decides between equals.
        scores_N: of each image, from 0 to 1.

    Shape:
        scores_N: [N]
    """

    name: str
    top1: float | None
    cost: float
    scores_N: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one candidate stands.

    Args:
        index: of the entry.
        score: posterior mean of its accuracy, from 0 to 1; None where nothing was measured.
        accuracy: mean of its scores; None where nothing was measured.
        expected: what the prior alone says; None where nothing was measured, for then it knows differences only.
        weight: of the prior in the score.
        behind: how far the score is below the best one's.
        standard_error: of that.
    """

    index: int
    score: float | None
    accuracy: float | None
    expected: float | None
    weight: float
    behind: float
    standard_error: float

    @property
    def within(self) -> bool:
        """Whether it is not worse than the best by more than one standard error."""
        return self.behind <= self.standard_error + _ROUNDING


def order(entries: Sequence[Entry], groups_N: NDArray[np.integer]) -> list[Place]:
    """Places of all entries, best first; of equals the cheaper first.

    Shape:
        groups_N: [N]

    Raises:
        ValueError: no entry, no image, or entries on different images.
    """
    if not entries or not len(groups_N) or {entry.scores_N.shape for entry in entries} != {groups_N.shape}:
        raise ValueError(
            f"Expected scores of the same images for every candidate, found shapes "
            f"{[entry.scores_N.shape for entry in entries]} for {len(groups_N)} images."
        )
    _, group_N = np.unique(groups_N, return_inverse=True)
    num_pictures = int(group_N.max()) + 1
    weight = PRIOR_IMAGES / (num_pictures + PRIOR_IMAGES)
    accuracy_B = np.array([entry.scores_N.mean() for entry in entries])
    expected_B = prior([entry.top1 for entry in entries], accuracy_B)
    score_B = (1 - weight) * accuracy_B + weight * expected_B
    ranking = np.lexsort((np.array([entry.cost for entry in entries]), -score_B))
    best = int(ranking[0])
    places = []
    for index in map(int, ranking):
        apart_N = entries[best].scores_N - entries[index].scores_N
        error = 0.0 if index == best else standard_error(apart_N, group_N) * float(np.sqrt(1 - weight))
        places.append(
            Place(
                index,
                float(score_B[index]),
                float(accuracy_B[index]),
                float(expected_B[index]),
                weight,
                float(score_B[best] - score_B[index]),
                error,
            )
        )
    return places


def by_prior(entries: Sequence[Entry]) -> list[Place]:
    """Places by the prior alone, where no image could be named right; their `scores_N` are not looked at.

    Raises:
        ValueError: no entry.
    """
    if not entries:
        raise ValueError("Expected one candidate at least, found none.")
    ahead_B = _ahead([entry.top1 for entry in entries])
    ranking = np.lexsort((np.array([entry.cost for entry in entries]), -ahead_B))
    best = int(ranking[0])
    return [
        Place(
            index, None, None, None, 1.0, float(ahead_B[best] - ahead_B[index]), 0.0 if index == best else PRIOR_ERROR
        )
        for index in map(int, ranking)
    ]


def prior(top1: Sequence[float | None], accuracy_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accuracies that the prior expects: those of ImageNet, moved so that their mean is what was measured.

    Or as near to it as leaves all of them between 0 and 1: then no score is outside, and differences stay as they are.
    A candidate whose ImageNet accuracy is unknown is expected to be like the mean of those that are known.
    """
    known_B = np.array([value is not None for value in top1])
    if not known_B.any():
        return np.full(len(accuracy_B), accuracy_B.mean())
    ahead_B = _ahead(top1)
    level = np.clip(accuracy_B[known_B].mean(), -ahead_B.min(), 1.0 - ahead_B.max())
    return np.asarray(np.clip(level + ahead_B, 0.0, 1.0))


def _ahead(top1: Sequence[float | None]) -> NDArray[np.float64]:
    """How far each is above the mean of the known ones on ImageNet; 0 for the unknown."""
    known_B = np.array([value is not None for value in top1])
    points_B = np.array([value or 0.0 for value in top1]) / 100
    return np.where(known_B, points_B - points_B[known_B].mean(), 0.0) if known_B.any() else np.zeros(len(top1))


def standard_error(apart_N: NDArray[np.float64], group_N: NDArray[np.integer]) -> float:
    """Of the mean of paired differences, where copies of one picture count as one.

    One picture more is taken to disagree than was seen to: between candidates that were right on the same images the
    error is not zero, and a single picture never decides.

    Shape:
        apart_N: [N]; group_N: [N], 0 .. G - 1
    """
    total_G = np.bincount(group_N, weights=apart_N - apart_N.mean())
    num_pictures = len(total_G)
    spread = float(np.square(total_G).sum()) * num_pictures / max(num_pictures - 1, 1)
    return float(np.sqrt(spread / len(apart_N) ** 2 + 1.0 / num_pictures**2))


def better_half(places: Sequence[Place]) -> list[Place]:
    """Who goes on: the better half, and all others that are not worse by more than one standard error.

    Leaving out whoever is one standard error behind would lose the best candidate one time in six.
    """
    kept = (len(places) + 1) // 2
    return [place for number, place in enumerate(places) if number < kept or place.within]
