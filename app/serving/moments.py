"""What was answered, summed up: moments of features, counts of scores and labels.

They do not grow with the number of answers: two numbers for each feature, and a few counts.

Shape legend: N images, D features, C classes, B bins of scores.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.artifact import reference

Double = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Moments:
    """Sums over some images.

    Args:
        num_images: that were looked at.
        num_skipped: that were answered, and not looked at.
        mean_D: of their features.
        squares_D: sum of squared distances from that mean.
        scores_B: top scores by bin, see `reference.SCORE_EDGES`.
        labels_C: predicted classes.
    """

    num_images: int
    num_skipped: int
    mean_D: Double
    squares_D: Double
    scores_B: Ints
    labels_C: Ints

    @classmethod
    def empty(cls, num_features: int, num_classes: int) -> Self:
        """Of no images."""
        zeros = np.zeros(num_features), np.zeros(num_features)
        bins = np.zeros(len(reference.SCORE_EDGES) + 1, np.int64)
        return cls(0, 0, *zeros, bins, np.zeros(num_classes, np.int64))

    @classmethod
    def of(cls, features_ND: NDArray[np.float32], probabilities_NC: NDArray[np.float32]) -> Self:
        """Of a batch; an image whose features or scores are no numbers is skipped.

        Shape:
            features_ND: [N, D]
            probabilities_NC: [N, C]
        """
        good_N = np.isfinite(features_ND.sum(1)) & np.isfinite(probabilities_NC.sum(1))
        if not good_N.all():
            features_ND, probabilities_NC = features_ND[good_N], probabilities_NC[good_N]
        number = len(features_ND)
        if not number:
            empty = cls.empty(features_ND.shape[1], probabilities_NC.shape[1])
            empty.num_skipped = len(good_N)
            return empty
        mean_D = features_ND.mean(0, dtype=np.float64)
        # In single precision, centred: a sixth of the time.
        centred_ND = features_ND - mean_D.astype(np.float32)
        squares_D = np.einsum("nd,nd->d", centred_ND, centred_ND).astype(np.float64)
        return cls(number, len(good_N) - number, mean_D, squares_D, *reference.count(probabilities_NC))

    @property
    def num_answered(self) -> int:
        """Images, looked at or not."""
        return self.num_images + self.num_skipped

    @property
    def variance_D(self) -> Double:
        """Of the features, unbiased."""
        return self.squares_D / max(self.num_images - 1, 1)

    def add(self, other: Self) -> None:
        """Takes other images in (Chan, Golub and LeVeque 1979, equation 2.1)."""
        total = self.num_images + other.num_images
        self.num_skipped += other.num_skipped
        if not other.num_images:
            return
        apart_D = other.mean_D - self.mean_D
        self.squares_D += other.squares_D + np.square(apart_D) * (self.num_images * other.num_images / total)
        self.mean_D += apart_D * (other.num_images / total)
        self.scores_B += other.scores_B
        self.labels_C += other.labels_C
        self.num_images = total


def total(parts: Iterable[Moments]) -> Moments | None:
    """All of them together; None of none."""
    found: Moments | None = None
    for one in parts:
        if found is None:
            found = Moments.empty(len(one.mean_D), len(one.labels_C))
        found.add(one)
    return found


def pack(moments: Moments) -> dict[str, NDArray[Any]]:
    """Named arrays."""
    return {
        "numbers": np.array([moments.num_images, moments.num_skipped], np.int64),
        "mean": moments.mean_D,
        "squares": moments.squares_D,
        "scores": moments.scores_B,
        "labels": moments.labels_C,
    }


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Moments:
    """The inverse of `pack`."""
    num_images, num_skipped = arrays["numbers"].tolist()
    return Moments(num_images, num_skipped, arrays["mean"], arrays["squares"], arrays["scores"], arrays["labels"])
