"""What a training will give, from frozen features alone and before it begins. Torch-free.

The expected accuracy on a test set of known size is a *prediction* interval: how well the pool tells the level and the
curve, how far the method that is served may lie from the ridge classifier that stands for it, and the chance in which
`num_test` items the test set has. docs/forecast.md says how often it held.

Shape legend: N items of the pool (all but the test split), D features, B draws.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.candidate import BLIND
from worker.forecasting import draws, more_images, power_law
from worker.forecasting.draws import Point
from worker.forecasting.labels_needed import Needed, Reach, Reading
from worker.forecasting.more_images import More
from worker.forecasting.power_law import PowerLaw
from worker.forecasting.stand_in import StandIn
from worker.solvers.folds import leaves_others

TIMES = (1.5, 2.0, 4.0)
# Without a curve nothing is foretold for more than this many times what was looked at.
_MAX_BLIND_TIMES = 1.5
# Standard deviation of the served classifier's accuracy around what its stand-in lets expect, times the root of the
# images that were looked at: of probes, and of few-shot classifiers, which are nearer to theirs. See docs/forecast.md.
PROBE_MISMATCH, UNIT_MISMATCH = 0.5, 0.3
_DRAWS = 10_000


@dataclass(frozen=True)
class Expected:
    """An accuracy with a 95 % prediction interval for a test set of known size."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Extrapolation:
    """What so many times the images would give.

    Args:
        times: as many images as there are.
        num_samples: that many in all.
        value: expected accuracy on a test set as large as this one.
        low: of its 95 % prediction interval.
        high: of its 95 % prediction interval.
        gain: in accuracy, over what there is.
        gain_low: of its 95 % interval, without the chance of a test set.
        gain_high: of its 95 % interval, without the chance of a test set.
    """

    times: float
    num_samples: int
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Forecast:
    """Everything that can be said before training.

    Args:
        expected: accuracy on the test split; None for the reason in `untold`.
        num_test: its size.
        num_images: that may be learned from.
        num_sampled: of them that were looked at.
        curve: accuracy with 10, 25, 50 and 100 % of the labels looked at; empty where no class is known without the
            picture that is left out.
        fit: a, b, c of err = a n^-b + c; None where the points do not tell it.
        reason: why there is no fit, and so no extrapolation and no expectation far beyond what was looked at.
        extrapolation: what 1.5, 2 and 4 times the images would give.
        more_images: what more images of each class would give; None where it was not asked for.
        reading: of the curve, by the accuracy that is wanted; None where the points do not tell one.
        untold: why nothing is expected: the curve would have to lead too far, or its stand-in guesses.
    """

    expected: Expected | None
    num_test: int
    num_images: int
    num_sampled: int
    curve: tuple[Point, ...]
    fit: dict[str, float] | None
    reason: str | None
    extrapolation: tuple[Extrapolation, ...]
    more_images: tuple[More, ...] | None
    reading: Reading | None = field(compare=False)
    untold: str | None = None

    def points(self) -> list[dict[str, Any]]:
        """The curve, JSON-ready."""
        return [
            {
                "num_samples": one.num_samples,
                "num_learned": one.learned,
                "accuracy": one.accuracy,
                "draws": list(one.draws),
            }
            for one in self.curve
        ]

    def extrapolations(self) -> list[dict[str, Any]]:
        """What more images of all classes would give, JSON-ready; empty where the points tell no curve."""
        return [asdict(one) for one in self.extrapolation]

    @cached_property
    def needed(self) -> tuple[Needed, ...] | None:
        """How many labels lead to which accuracy; None where the points tell no curve."""
        return None if self.reading is None else self.reading.ladder()

    def needs(self) -> list[dict[str, Any]] | None:
        """The same, JSON-ready."""
        return None if self.needed is None else [asdict(one) for one in self.needed]

    def advice(self, class_names: tuple[str, ...]) -> list[dict[str, Any]] | None:
        """What more images of each class buy, the most first, JSON-ready."""
        if self.more_images is None:
            return None
        return [asdict(one) | {"label": class_names[one.label]} for one in self.more_images]


def forecast(
    feats_ND: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    num_classes: int,
    seed: int,
    num_test: int,
    *,
    num_learned: int | None = None,
    unit: bool = False,
    advise: bool = False,
    is_over: Callable[[], bool] | None = None,
) -> Forecast:
    """Foretells the accuracy of a classifier on these features.

    Args:
        feats_ND: of the pool.
        labels_N: of the pool.
        groups_N: copies of one picture share a number.
        num_classes: of the task.
        seed: of all draws.
        num_test: items that the found accuracy will be measured on.
        num_learned: items that will be learned from, where that is not the whole pool.
        unit: the classifier stands on features of length 1 (few_shot), not on standardised ones.
        advise: whether each class is asked what more images of it would buy.
        is_over: whether the time for it is over, so that classes that were not asked yet are not asked any more.

    Shape:
        feats_ND: [N, D]; labels_N, groups_N: [N].

    Raises:
        ValueError: fewer than two different pictures, or no test item.
    """
    if len(np.unique(groups_N)) < 2 or num_test < 1:
        raise ValueError(
            f"Expected at least two different pictures and one test item, found {len(np.unique(groups_N))} and "
            f"{num_test}; there is nothing to foretell from, or nothing to foretell."
        )
    found = draws.sample(feats_ND, labels_N, groups_N, num_classes, seed, unit=unit)
    seen = found.seen()
    blind = None if leaves_others(labels_N, groups_N) else BLIND
    guessed = blind or _guessed(found.fitted)
    reason = power_law.untold(seen) or guessed
    law = power_law.weigh(seen)
    chance = np.random.default_rng(seed)
    curves = law.draw(_DRAWS, chance)
    size = num_learned or len(labels_N)
    counts_C = np.bincount(labels_N, minlength=num_classes)
    test = _Test(num_test, (UNIT_MISMATCH if unit else PROBE_MISMATCH) / np.sqrt(len(found.fitted.labels_N)), chance)
    far = reason is not None and size > _MAX_BLIND_TIMES * len(found.fitted.labels_N)
    untold = guessed or (reason if far else None)
    return Forecast(
        # In this order: each takes its draws after those of the one before.
        expected=None if untold else test.expected(1.0 - curves.error(size)),
        num_test=num_test,
        num_images=size,
        num_sampled=len(found.fitted.labels_N),
        curve=() if blind else found.points,
        fit=None if reason else law.document(),
        reason=reason,
        extrapolation=() if reason else tuple(_extrapolated(curves, size, times, test) for times in TIMES),
        more_images=more_images.advise(found.fitted, counts_C, law, seed, reason, is_over) if advise else None,
        reading=None if reason else Reading(curves, test.offsets(_DRAWS), Reach(float(seen.sizes_S[0]), size)),
        untold=untold,
    )


def _guessed(fitted: StandIn) -> str | None:
    """Why what was left out foretells nothing: left out, an item is what its class is short of, so guesses miss more.

    In what was counted, and not by an interval: a small gain over the largest class is expected as such.
    """
    num, largest = len(fitted.labels_N), int(np.bincount(fitted.labels_N).max())
    if fitted.right_N.sum() > largest:
        return None
    return (
        f"ridge, which stands for the classifier until it is trained, names {fitted.right_N.mean():.3f} of {num} "
        f"images right when they are left out, and the largest class alone is {largest / num:.3f} of them; add images, "
        "or check that labels belong to theirs"
    )


def seconds(num_images: int, num_classes: int) -> float:
    """What a forecast takes on two cores at rest, what more images of each class buy not counted in."""
    num = min(num_images, draws.most(num_classes))
    return 0.1 + 1e-3 * num * (1 + num / 3000)


@dataclass(frozen=True)
class _Test:
    """What stands between an accuracy that ridge lets expect and one that is found.

    Args:
        num_items: of the test set.
        mismatch: deviation of the served classifier's accuracy.
        chance: of both.
    """

    num_items: int
    mismatch: float
    chance: np.random.Generator

    def offsets(self, num_draws: int) -> NDArray[np.float64]:
        """How much better the served classifier may be than ridge."""
        return self.mismatch * self.chance.standard_normal(num_draws)

    def expected(self, accuracy_B: NDArray[np.float64]) -> Expected:
        """Mean of the possible accuracies, and 95 % of what may be found."""
        served_B = np.clip(accuracy_B + self.offsets(len(accuracy_B)), 0.0, 1.0)
        found_B = self.chance.binomial(self.num_items, served_B) / self.num_items
        low, high = np.quantile(found_B, [0.025, 0.975])
        return Expected(float(accuracy_B.mean()), float(low), float(high))


def _extrapolated(curves: PowerLaw, size: int, times: float, test: _Test) -> Extrapolation:
    accuracy_B = 1.0 - curves.error(times * size)
    gain_B = accuracy_B - (1.0 - curves.error(size))
    expected = test.expected(accuracy_B)
    low, high = np.quantile(gain_B, [0.025, 0.975])
    return Extrapolation(
        times,
        round(times * size),
        expected.value,
        expected.low,
        expected.high,
        float(gain_B.mean()),
        float(low),
        float(high),
    )
