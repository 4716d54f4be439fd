"""How many labels an accuracy needs, read off the learning curve, with an interval. Torch-free.

Every curve that is possible after what was seen (`power_law`) is asked for the size at which the served classifier
comes to an accuracy; how far that one may lie from the curve's ridge counts in. The answer is the middle of these
sizes. The curve was seen from its smallest size to its largest, and is led on to MAX_TIMES the images; what lies
outside is told as that, and never as a number: four points say next to nothing of where a curve ends.

Shape legend: B draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.forecasting.power_law import PowerLaw

# Accuracies that are asked about in every report.
ACCURACIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99)
# Of the images that may be learned from: as far as forecasts lead.
MAX_TIMES = 4.0
SEEN, FORETOLD, FEWER, NOT_REACHED = "within_the_labels", "foretold", "fewer", "not_reached"


@dataclass(frozen=True)
class Needed:
    """The labels that an accuracy needs.

    Args:
        accuracy: that is wanted, of the served classifier on images as these.
        outcome: `within_the_labels`, no more than there are; `foretold`, more than there are; `fewer`, than the curve
            was looked at with; `not_reached`, within what the curve can tell.
        num_samples: in all, not in addition; None for the last two.
        low: of its 95 % interval; None where fewer than the curve was looked at with may do.
        high: of its 95 % interval; None where it may not be reached within what the curve can tell.
        probability: that it is reached within what the curve can tell.
        sentence: the same for people.
    """

    accuracy: float
    outcome: str
    num_samples: int | None
    low: int | None
    high: int | None
    probability: float
    sentence: str


@dataclass(frozen=True)
class Reach:
    """From where to where the curve says something.

    Args:
        fewest: images of the smallest point.
        size: that may be learned from.
    """

    fewest: float
    size: int

    @property
    def most(self) -> float:
        """As far as the curve is led on."""
        return MAX_TIMES * self.size


@dataclass(frozen=True)
class Reading:
    """A learning curve that can be asked how many labels an accuracy needs.

    Args:
        curves: draws, equally weighted.
        offset_B: how much better the served classifier is than the curve's, of each draw.
        reach: of the curve.
    """

    curves: PowerLaw
    offset_B: NDArray[np.float64]
    reach: Reach

    def ladder(self) -> tuple[Needed, ...]:
        """One answer for each of ACCURACIES."""
        return tuple(self.at(accuracy) for accuracy in ACCURACIES)

    def at(self, accuracy: float) -> Needed:
        """How many labels lead to an accuracy."""
        return _needed(accuracy, self.curves.size_at(1.0 - accuracy + self.offset_B), self.reach)


def _needed(accuracy: float, sizes_B: NDArray[np.float64], reach: Reach) -> Needed:
    probability = float((sizes_B <= reach.most).mean())
    # An order statistic each: the mean of two sizes of which one is infinite is none.
    low, middle, high = np.quantile(sizes_B, [0.025, 0.5, 0.975], method="inverted_cdf").tolist()
    bounds = (
        None if low < reach.fewest else _rounded(low, reach),
        None if high > reach.most else _rounded(high, reach),
    )
    if middle > reach.most:
        told = (
            f"{accuracy:.2f} is not reached within what the curve can tell, {reach.most:.0f} labels: of the curves "
            f"that fit what was seen {probability:.0%} come to it"
        )
        return Needed(accuracy, NOT_REACHED, None, *bounds, probability, told)
    if middle < reach.fewest:
        told = f"{accuracy:.2f} needs fewer than the {reach.fewest:.0f} labels that the curve begins with"
        return Needed(accuracy, FEWER, None, *bounds, probability, told)
    number = int(np.ceil(middle))
    told = f"{accuracy:.2f} needs about {number} labels ({_span(bounds, reach)})"
    return Needed(accuracy, SEEN if number <= reach.size else FORETOLD, number, *bounds, probability, told)


def _rounded(size: float, reach: Reach) -> int | None:
    """A whole number of labels; None outside what the curve can tell."""
    return int(np.ceil(size)) if reach.fewest <= size <= reach.most else None


def _span(bounds: tuple[int | None, int | None], reach: Reach) -> str:
    low, high = bounds
    first = f"{low}" if low is not None else f"fewer than {reach.fewest:.0f}"
    return f"{first} to {high}" if high is not None else f"{first} to more than {reach.most:.0f}"
