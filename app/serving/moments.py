"""What was answered, summed up: moments of features, counts of scores and labels, in slots of time.

Memory does not grow with the number of answers: a slot holds two numbers for each feature, and older slots are joined.

Shape legend: N images, D features, C classes, B bins of scores.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from app.artifact import reference

Double = NDArray[np.float64]
Ints = NDArray[np.int64]
Window = Literal["hour", "day", "start"]

SLOT_SECONDS = 600.0
HOUR, DAY = 3600.0, 86_400.0
WINDOW_SECONDS: dict[Window, float] = {"hour": HOUR, "day": DAY, "start": float("inf")}


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


class Slots:
    """Moments by time: slots of ten minutes in the last hour, of an hour in the last day, and one for all before.

    Args:
        num_features: of an image.
        num_classes: of the model.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        self._shape = num_features, num_classes
        # Start of each slot, oldest first; the first one's is when anything was first seen.
        self._slots: deque[tuple[float, Moments]] = deque()

    def open(self, now: float) -> Moments:
        """The slot of this moment.

        Args:
            now: seconds, by a clock that does not go back.
        """
        start = now // SLOT_SECONDS * SLOT_SECONDS
        if not self._slots or self._slots[-1][0] < start:
            self._slots.append((start, Moments.empty(*self._shape)))
            self._slots = deque(_joined(self._slots, now))
        return self._slots[-1][1]

    def within(self, window: Window, now: float) -> Moments:
        """All of the last hour or day, to a slot's length, or since the start; a copy."""
        oldest = now - WINDOW_SECONDS[window]
        found = Moments.empty(*self._shape)
        for start, moments in self._slots:
            if start > oldest:
                found.add(moments)
        return found

    def __len__(self) -> int:
        return len(self._slots)


def _joined(slots: Iterable[tuple[float, Moments]], now: float) -> Iterator[tuple[float, Moments]]:
    """The same, those of one hour together when the hour is past, and those of past days."""
    before: tuple[float, Moments] | None = None
    last_kind: tuple[str, float] | None = None
    for start, moments in slots:
        age = now - start
        kind = ("slot", start) if age < HOUR else ("hour", start // HOUR) if age < DAY else ("rest", 0.0)
        if before is not None and kind == last_kind:
            before[1].add(moments)
            continue
        if before is not None:
            yield before
        before, last_kind = (start, moments), kind
    if before is not None:
        yield before
