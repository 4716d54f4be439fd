"""Whether what a version is asked looks like what it was tested on: four distances, each with what chance makes of it.

A distance counts when it is both unlikely by chance (Holm's correction over the four) and large enough to matter. With
few images nothing is unlikely, with very many everything is: each guards the other.

- `scores`: population stability index of the top score, in cells that hold equally many reference items. PSI of two
  samples of one distribution is (1/m + 1/n) times chi-square (Yurdakul and Naranjo, Journal of Risk Model Validation
  2020, 14(4)); its levels are those of credit scoring (Siddiqi, Credit Risk Scorecards, 2006).
- `labels`: the same of the predicted classes; rare ones are counted together. Both take p from Pearson's test.
- `shift`: how far the mean of the features has moved, in deviations of the features as a whole, |m1 - m2| over the
  root of tr(C): one scale for all dimensions, since that of each cannot be told from few items. What two samples of one
  distribution give is tr(C1)/m + tr(C2)/n on average (Chen and Qin, Annals of Statistics 2010, 10.1214/09-AOS716). Its
  spread comes from random halvings of the reference's items, its tail from three cumulants (Buckley and Eagleson 1988).
- `spread`: the logarithm of the ratio of the deviations, (tr(C2) / tr(C1))^(1/2); a normal by the same halvings.

The Frechet distance of normal distributions with diagonal covariances (Dowson and Landau 1982) is told beside them. It
has no level: from few items it is biased, the more the fewer they are.

Shape legend: D features, C classes, B bins, L cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.artifact import counts
from app.artifact.reference import Null, Reference
from app.serving.moments import Moments

Ints = NDArray[np.int64]
Verdict = Literal["stable", "drift", "not_enough", "no_reference"]
Level = Literal["none", "moderate", "large"]

# Of a wrong `drift` in one look, over all four distances.
ALPHA = 0.01
MIN_IMAGES, MIN_REFERENCE = 50, 30
MOST_CELLS, ITEMS_PER_CELL = 10, 10
# From where a distance is `moderate`, and `large`; of what exceeds the mean of chance.
PSI_LEVELS = 0.1, 0.25
SHIFT_LEVELS = 0.1, 0.25
SPREAD_LEVELS = 0.1, 0.25
SHOWN_CLASSES = 5


@dataclass(frozen=True, slots=True)
class Distance:
    """One distance.

    Args:
        value: as it is: PSI, deviations, or a logarithm.
        by_chance: what it is on average between two samples of one distribution, of these sizes.
        excess: what is beyond that; 0 at least.
        p: how likely one as large is by chance.
        p_adjusted: that any of the four is.
        level: of the excess.
        drifted: unlikely by chance, and at least moderate.
    """

    value: float
    by_chance: float
    excess: float
    p: float
    level: Level
    p_adjusted: float = 1.0
    drifted: bool = False


@dataclass(frozen=True, slots=True)
class Class:
    """How often a class is predicted: now, and of the reference's items."""

    label: str
    share: float
    reference_share: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What is to be said of a version.

    Args:
        verdict: the word.
        reasons: sentences.
        distances: by name; those that could be taken.
        frechet: between the features, over the reference's total variance; None without them.
        jensen_shannon: of the scores' cells, in bits from 0 (the same) to 1; None without `scores`.
        classes: whose shares differ most.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    distances: dict[str, Distance]
    frechet: float | None = None
    jensen_shannon: float | None = None
    classes: tuple[Class, ...] = ()


def compare(known: Reference, seen: Moments, labels: Sequence[str]) -> Drift:
    """Holds what was seen against the reference.

    Args:
        known: of the version.
        seen: likewise.
        labels: names of the model's classes.
    """
    lacking = _lacking(known, seen)
    if lacking is not None:
        return Drift("not_enough", (lacking,), {})
    found = {
        "scores": _counted(*_cells(known.scores_B, seen.scores_B)),
        "labels": _counted(known.labels_C, seen.labels_C),
        **_features(known, seen),
    }
    distances = _adjusted({name: one for name, one in found.items() if one is not None})
    classes = _classes(known.labels_C, seen.labels_C, labels)
    reasons = tuple(_reason(name, one, classes) for name, one in distances.items() if one.drifted)
    if reasons:
        verdict: Verdict = "drift"
    else:
        verdict = "stable"
        reasons = (
            f"{seen.num_images} images do not differ from the reference's {known.num_items} by more than chance allows "
            "and the levels count; a difference too small for so many may be there",
        )
    return Drift(
        verdict, reasons, distances, _frechet(known, seen), _jensen_shannon(known.scores_B, seen.scores_B), classes
    )


def _lacking(known: Reference, seen: Moments) -> str | None:
    if known.num_items < MIN_REFERENCE:
        return (
            f"expected a reference of at least {MIN_REFERENCE} test items; found {known.num_items}, whose spread says "
            "too little; train on a dataset with a larger test split"
        )
    if seen.num_images < MIN_IMAGES:
        return (
            f"expected at least {MIN_IMAGES} images in the window; found {seen.num_images}; "
            f"{MIN_IMAGES - seen.num_images} more are needed, or a longer window"
        )
    return None


def _cells(known_B: Ints, seen_B: Ints) -> tuple[Ints, Ints]:
    """Bins of scores put together to cells [L] that hold about equally many of the reference's items."""
    most = max(2, min(MOST_CELLS, int(known_B.sum()) // ITEMS_PER_CELL, int(seen_B.sum()) // ITEMS_PER_CELL))
    ends = np.cumsum(known_B)
    # A bin belongs to the cell in which its middle item lies.
    cell_B = np.minimum((ends - known_B / 2) * most // max(int(ends[-1]), 1), most - 1).astype(np.int64)
    known_L, seen_L = (np.bincount(cell_B, weights=one_B, minlength=most) for one_B in (known_B, seen_B))
    return known_L.astype(np.int64), seen_L.astype(np.int64)


def _counted(known_K: Ints, seen_K: Ints) -> Distance | None:
    """PSI of two sets of counts; None where all lies in one cell, or in rare ones."""
    found = counts.homogeneity(known_K, seen_K)
    if found is None:
        return None
    # Half an item more in each cell: an empty one would make the index infinite.
    shares_2L = (found.cells_2L + 0.5) / (found.cells_2L + 0.5).sum(1, keepdims=True)
    index = float(((shares_2L[0] - shares_2L[1]) * np.log(shares_2L[0] / shares_2L[1])).sum())
    by_chance = found.degrees * float((1 / found.cells_2L.sum(1)).sum())
    excess = max(index - by_chance, 0.0)
    return Distance(
        index, by_chance, excess, chi_square_tail(found.statistic, found.degrees), _level(excess, PSI_LEVELS)
    )


def _features(known: Reference, seen: Moments) -> dict[str, Distance | None]:
    total, now = float(known.variance_D.sum()), float(seen.variance_D.sum())
    if total <= 0 or now <= 0:
        return {}
    expected = total / known.num_items + now / seen.num_images
    squared = float(np.square(known.mean_D - seen.mean_D).sum())
    excess = math.sqrt(max(squared - expected, 0.0) / total)
    shift = Distance(
        math.sqrt(squared / total),
        math.sqrt(expected / total),
        excess,
        _tail(squared / expected - 1, known.null),
        _level(excess, SHIFT_LEVELS),
    )
    ratio = math.log(now / total) / 2
    deviation = known.null.spread_deviation * math.sqrt(1 / known.num_items + 1 / seen.num_images)
    by_chance = deviation * math.sqrt(2 / math.pi)
    p = math.erfc(abs(ratio) / deviation / math.sqrt(2)) if deviation > 0 else 1.0
    beyond = max(abs(ratio) - by_chance, 0.0)
    return {"shift": shift, "spread": Distance(ratio, by_chance, beyond, p, _level(beyond, SPREAD_LEVELS))}


def _tail(above: float, null: Null) -> float:
    """How likely a shift that much above its mean of 1 is, by a shifted chi-square with the null's cumulants."""
    if null.shift_deviation <= 0:
        return 1.0
    # Skew of chi-square is sqrt(8 / degrees); the ends keep it between a normal and a single square.
    degrees = 8 / min(max(null.shift_skew, 0.01), math.sqrt(8.0)) ** 2
    return chi_square_tail(degrees + above / null.shift_deviation * math.sqrt(2 * degrees), degrees)


def chi_square_tail(value: float, degrees: float) -> float:
    """P(chi-square >= value) by the cube root (Wilson and Hilferty 1931): within 0.01 in all, 10 % in far tails."""
    if value <= 0:
        return 1.0
    spread = 2 / (9 * degrees)
    return 0.5 * math.erfc(((value / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(2 * spread))


def _adjusted(distances: dict[str, Distance]) -> dict[str, Distance]:
    """With p-values of all of them together (Holm 1979)."""
    order = sorted(distances, key=lambda name: distances[name].p)
    least, adjusted = 0.0, {}
    for place, name in enumerate(order):
        least = max(least, min(distances[name].p * (len(order) - place), 1.0))
        one = distances[name]
        adjusted[name] = replace(one, p_adjusted=least, drifted=least < ALPHA and one.level != "none")
    return {name: adjusted[name] for name in distances}


def _level(excess: float, levels: tuple[float, float]) -> Level:
    moderate, large = levels
    return "large" if excess >= large else "moderate" if excess >= moderate else "none"


def _frechet(known: Reference, seen: Moments) -> float | None:
    total = float(known.variance_D.sum())
    if total <= 0:
        return None
    apart = np.square(known.mean_D - seen.mean_D) + np.square(np.sqrt(known.variance_D) - np.sqrt(seen.variance_D))
    return float(apart.sum()) / total


def _jensen_shannon(known_B: Ints, seen_B: Ints) -> float:
    shares_2L = np.stack([one_L / one_L.sum() for one_L in _cells(known_B, seen_B)])
    mixed_L = shares_2L.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_2L = np.where(shares_2L > 0, shares_2L * np.log2(shares_2L / mixed_L), 0.0)
    return float(terms_2L.sum() / 2)


def _classes(known_C: Ints, seen_C: Ints, labels: Sequence[str]) -> tuple[Class, ...]:
    known, seen = known_C / max(known_C.sum(), 1), seen_C / max(seen_C.sum(), 1)
    order = np.argsort(-np.abs(known - seen), kind="stable")[:SHOWN_CLASSES]
    return tuple(Class(labels[place], float(seen[place]), float(known[place])) for place in order.tolist())


def _reason(name: str, one: Distance, classes: tuple[Class, ...]) -> str:
    sizes = f"where chance makes {one.by_chance:.2f} (p {one.p_adjusted:.2g}, {one.level})"
    if name == "scores":
        return f"scores: the best class's score is spread otherwise: PSI {one.value:.2f}, {sizes}"
    if name == "labels":
        most = classes[0]
        return (
            f"labels: classes are predicted in other shares: PSI {one.value:.2f}, {sizes}; most of all {most.label!r}, "
            f"{most.share:.1%} now and {most.reference_share:.1%} in the reference"
        )
    if name == "shift":
        return f"features: their mean lies {one.value:.2f} deviations off, {sizes}"
    times = f"{math.exp(one.value):.2f} times the reference's"
    return f"features: their deviation is {times}, a logarithm of {one.value:.2f}, {sizes}"
