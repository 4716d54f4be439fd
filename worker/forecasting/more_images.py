"""What more images of one class would buy: "40 more images of tools buy +3 points". Torch-free.

Told by what classes gained that grew (`lending`): a class that is rare among the others by what these were like with as
few, any other one by what the second half of a class's images brought, beside half of all. That was twice the images;
on a power law err = a m^-b in the number of images m, t times as many bring (1 - t^-b) / (1 - 2^-b) of it. The
exponent is uncertain as that of the whole curve is. Points are of balanced accuracy (mean recall): in plain accuracy a
rare class would never be worth an image, however badly it is known. What other classes lose to it is counted in.

Shape legend: N items, C classes, B draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.evaluate.flags import beats_largest_class
from worker.forecasting import lending
from worker.forecasting.lending import Lent
from worker.forecasting.power_law import PowerLaw
from worker.forecasting.stand_in import StandIn

# With fewer pictures of a class nothing says how much of it is missed.
MIN_PICTURES = 4
# Nothing that was seen reaches further than this many times the images of a class.
MAX_TIMES = 4
# A class of no more than this share of the median one is rare.
RARE_SHARE = 0.5
# The served classifier gains another multiple of what its stand-in gains: deviation of the logarithm.
FACTOR_SD = 0.3
# Rare classes of nearly the same size borrow the same: sizes are taken in steps of this factor.
_STEP = 2**0.5
_DRAWS = 4000
# Named so that nobody collects images of a class whose labels are the fault.
UNTOLD = "the learning curve tells no law, so nothing says what more images would bring: {}"
GUESSES = (
    "on these features no classifier is shown to be better than always naming the largest class; check that labels "
    "belong to their images before adding any"
)
ALL_KNOWN = "hardly an image is named wrong when half of them are learned from, so nothing shows what more would bring"
NO_TIME = "the time that the job had for its forecast was over; give it more time (max_minutes)"


@dataclass(frozen=True)
class More:
    """What more images of a class would give; points are null, with the reason, where that cannot be told.

    Args:
        label: the class.
        images: how many more: as many as the median class has; of a rare class as many as it has less than that. Three
            times as many as the class has at most.
        gain_points: of balanced accuracy, in hundredths.
        low: of its 95 % interval.
        high: of its 95 % interval.
        recall: of the class now, each picture left out.
        reason: why points are null.
    """

    label: int
    images: int
    gain_points: float | None
    low: float | None
    high: float | None
    recall: float | None
    reason: str | None


def advise(
    fitted: StandIn,
    counts_C: NDArray[np.int64],
    law: PowerLaw,
    seed: int,
    flat: str | None = None,
    is_over: Callable[[], bool] | None = None,
) -> tuple[More, ...]:
    """Every class, the one that gains most first; those that cannot be told last.

    Args:
        fitted: the classifier in closed form, of what was looked at.
        counts_C: images of each class that may be learned from, looked at or not.
        law: how errors fall with images.
        seed: of all draws.
        flat: why the points tell no law; where they do not rise, what half of a class costs is chance.
        is_over: whether there is no time to ask another class.
    """
    asked = _Asked(fitted, counts_C, law, np.random.default_rng(seed), is_over)
    untold = UNTOLD.format(flat) if flat else None
    if untold is None and not beats_largest_class(fitted.right_N, fitted.labels_N):
        untold = GUESSES
    found = [asked.none(label, untold) for label in range(fitted.num_classes)] if untold else asked.all()
    return tuple(sorted(found, key=lambda one: -np.inf if one.gain_points is None else one.gain_points, reverse=True))


class _Asked:
    """The classes of one dataset, each asked what more images of it would buy. Arguments as of `advise`."""

    def __init__(
        self,
        fitted: StandIn,
        counts_C: NDArray[np.int64],
        law: PowerLaw,
        chance: np.random.Generator,
        is_over: Callable[[], bool] | None,
    ) -> None:
        self._fitted, self._counts_C, self._chance, self._is_over = fitted, counts_C, chance, is_over
        self._seen_C = np.bincount(fitted.labels_N, minlength=fitted.num_classes)
        self._usual, self._usual_seen = _median(counts_C), _median(self._seen_C)
        self._exponent_B = law.draw(_DRAWS, chance).exponent_K
        # By images before and after; by none of what half of all images tell.
        self._lent: dict[tuple[int, int] | None, Lent | None] = {}

    def all(self) -> list[More]:
        """Each class by what was lent to it."""
        return [self._class(label) for label in range(self._fitted.num_classes)]

    def _class(self, label: int) -> More:
        num = self._num_pictures(label)
        if num < MIN_PICTURES:
            part = len(self._fitted.labels_N) < self._counts_C.sum()
            among = f" among the {len(self._fitted.labels_N)} images that were looked at" if part else ""
            return self.none(
                label, f"expected at least {MIN_PICTURES} different pictures of the class; found {num}{among}"
            )
        if (lent := self._of_rare(label)) is not None:
            return self._told(label, lent, 1.0)
        if (lent := self._of_half()) is not None:
            times = 1 + self._images(label) / int(self._counts_C[label])
            return self._told(label, lent, (1 - times**-self._exponent_B) / (1 - 2**-self._exponent_B))
        return self.none(label, NO_TIME if self._is_late() else ALL_KNOWN)

    def none(self, label: int, reason: str) -> More:
        """A class of which nothing can be told."""
        return More(label, self._images(label), None, None, None, self._recall(label), reason)

    def _images(self, label: int) -> int:
        count = int(self._counts_C[label])
        wanted = self._usual - count if count <= RARE_SHARE * self._usual else self._usual
        return max(1, min(wanted, (MAX_TIMES - 1) * count))

    def _of_rare(self, label: int) -> Lent | None:
        """What others gained that had as few; None where it is not rare, or too few classes are larger."""
        count = int(self._seen_C[label])
        if count > RARE_SHARE * self._usual_seen:
            return None
        few = max(MIN_PICTURES, round(_STEP ** round(np.log(count) / np.log(_STEP))))
        times = 1 + self._images(label) / int(self._counts_C[label])
        many = max(few + 1, min(self._usual_seen, round(few * times)))
        if (few, many) not in self._lent:
            self._lent[few, many] = lending.from_few(self._fitted, few, many, self._chance, self._is_over)
        return self._lent[few, many]

    def _of_half(self) -> Lent | None:
        """What the second half of a class's images brought; of rare ones, too, where there are few others."""
        if None not in self._lent:
            able = [label for label in range(len(self._seen_C)) if self._num_pictures(label) >= MIN_PICTURES]
            usual = [label for label in able if self._seen_C[label] > RARE_SHARE * self._usual_seen]
            chosen = usual if len(usual) >= lending.MIN_GROWN else able
            self._lent[None] = lending.from_half(self._fitted, chosen, self._chance, self._is_over)
        return self._lent[None]

    def _told(self, label: int, lent: Lent, grown_B: NDArray[np.float64] | float) -> More:
        num_seen, recall = self._num_pictures(label), self._recall(label)
        assert recall is not None
        # Copies are named alike: each picture counts once.
        gain_B = lent.gain(round(recall * num_seen), num_seen, _DRAWS, self._chance)
        # Where only a part was looked at, all classes have more images, and gain less by the same law.
        part_B = (int(self._seen_C[label]) / int(self._counts_C[label])) ** self._exponent_B
        factor_B = np.exp(FACTOR_SD * self._chance.standard_normal(_DRAWS))
        low, middle, high = np.quantile(gain_B * grown_B * part_B * factor_B, [0.025, 0.5, 0.975]).tolist()
        return More(label, self._images(label), middle, low, high, recall, None)

    def _is_late(self) -> bool:
        return self._is_over is not None and self._is_over()

    def _num_pictures(self, label: int) -> int:
        return len(np.unique(self._fitted.groups_N[self._fitted.labels_N == label]))

    def _recall(self, label: int) -> float | None:
        own = self._fitted.labels_N == label
        return float(self._fitted.right_N[own].mean()) if own.any() else None


def _median(counts_C: NDArray[np.int64]) -> int:
    return max(1, round(float(np.median(counts_C[counts_C > 0]))))
