"""reference.safetensors: how features and scores of a version are spread on items that it did not learn from.

What is served later is held against it. It is small whatever the number of items: moments of the features, counts of
scores and labels, and how far random halves of the items are apart (a null level for distances of features).

Shape legend: T items, D features, C classes, B bins of scores, P random halvings.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]
Ints = NDArray[np.int64]

VERSION = 1
# Upper ends of the bins of top scores, evenly in log-odds: most scores of a good model lie within a percent of 1.
SCORE_EDGES = 1 / (1 + np.exp(-np.arange(-5.0, 16.01, 0.25)))
HALVINGS, HALVED_ITEMS = 499, 1000


@dataclass(frozen=True, slots=True)
class Null:
    """What chance makes of the distances of two sets of items, by random halvings of the reference's.

    Args:
        shift_deviation: of the squared distance of the means, whose mean is 1 when divided by what is expected.
        shift_skew: likewise; a sum of few squares has a long tail.
        spread_deviation: of the logarithm of the ratio of deviations, times (1/m + 1/n)^(-1/2); its mean is 0.
    """

    shift_deviation: float
    shift_skew: float
    spread_deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a version's features and scores look like.

    Args:
        num_items: behind it.
        mean_D: of the features that the head sees.
        variance_D: likewise, unbiased.
        scores_B: how many top scores lie in each bin.
        labels_C: how many items each class was predicted for.
        null: of distances of features.
    """

    num_items: int
    mean_D: Double
    variance_D: Double
    scores_B: Ints
    labels_C: Ints
    null: Null


def make(features_TD: NDArray[np.floating], probabilities_TC: NDArray[np.floating], seed: int = 0) -> Reference:
    """The reference of some held-out items.

    Args:
        features_TD: as the head sees them.
        probabilities_TC: what the model says of the same items, in their order.
        seed: of the random halvings.

    Shape:
        features_TD: [T, D]
        probabilities_TC: [T, C]

    Raises:
        ValueError: fewer than two items, or not the same number of both.
    """
    if len(features_TD) != len(probabilities_TC) or len(features_TD) < 2:
        raise ValueError(
            f"expected features and probabilities of at least two items; found {len(features_TD)} and "
            f"{len(probabilities_TC)}"
        )
    features = np.asarray(features_TD, np.float64)
    mean_D = features.mean(0)
    scores_B, labels_C = count(probabilities_TC)
    null = _null(features - mean_D, np.random.default_rng(seed))
    return Reference(len(features), mean_D, features.var(0, ddof=1), scores_B, labels_C, null)


def count(probabilities_NC: NDArray[np.floating]) -> tuple[Ints, Ints]:
    """Top scores by bin [B], and predicted classes [C]."""
    bins_N = np.searchsorted(SCORE_EDGES, probabilities_NC.max(1))
    labels_N = probabilities_NC.argmax(1)
    return (
        np.bincount(bins_N, minlength=len(SCORE_EDGES) + 1).astype(np.int64),
        np.bincount(labels_N, minlength=probabilities_NC.shape[1]).astype(np.int64),
    )


def pack(reference: Reference) -> dict[str, NDArray[Any]]:
    """Named arrays."""
    return {
        "version": np.array(VERSION, np.int64),
        "num_items": np.array(reference.num_items, np.int64),
        "mean": reference.mean_D.astype(np.float32),
        "variance": reference.variance_D.astype(np.float32),
        "scores": reference.scores_B,
        "labels": reference.labels_C,
        "null": np.array(astuple(reference.null), np.float64),
    }


def unpack(tensors: Mapping[str, NDArray[Any]], num_features: int, num_classes: int) -> Reference | None:
    """The inverse of `pack`; None for one that a newer Graft wrote in another way.

    Raises:
        ValueError, KeyError, TypeError: the arrays are not those of a reference of so many features and classes.
    """
    if int(tensors["version"]) != VERSION:
        return None
    shapes = {"mean": (num_features,), "variance": (num_features,), "scores": (len(SCORE_EDGES) + 1,)}
    for name, shape in {**shapes, "labels": (num_classes,), "null": (3,)}.items():
        if tensors[name].shape != shape:
            raise ValueError(f"expected {name!r} of shape {shape}; found {tensors[name].shape}")
    found = Reference(
        num_items=int(tensors["num_items"]),
        mean_D=tensors["mean"].astype(np.float64),
        variance_D=tensors["variance"].astype(np.float64),
        scores_B=tensors["scores"].astype(np.int64),
        labels_C=tensors["labels"].astype(np.int64),
        null=Null(*tensors["null"].tolist()),
    )
    sums = int(found.scores_B.sum()), int(found.labels_C.sum())
    least = min(found.variance_D.min(initial=0), found.scores_B.min(initial=0), found.labels_C.min(initial=0))
    if sums != (found.num_items, found.num_items) or found.num_items < 2 or least < 0:
        raise ValueError(f"expected counts of {found.num_items} items, and none below 0; found {sums} and {least}")
    return found


def _null(centred_TD: Double, generator: np.random.Generator) -> Null:
    """Distances of random halvings of the items.

    Under a permutation the diagonal of the Gram matrix is a constant, so that the spread of the shift is that of the
    distribution also where there are fewer items than dimensions.
    """
    half = min(len(centred_TD), HALVED_ITEMS) // 2
    items_MD = generator.permutation(centred_TD)[: 2 * half].astype(np.float32)
    first_PM = generator.permuted(np.tile(np.arange(2 * half) < half, (HALVINGS, 1)), axis=1).astype(np.float32)
    one_PD = first_PM @ items_MD / half
    other_PD = items_MD.sum(0) / half - one_PD
    shift_P = np.square(one_PD - other_PD).sum(1, dtype=np.float64)
    if not shift_P.any():
        return Null(0.0, 0.0, 0.0)
    shift_P /= shift_P.mean()
    deviation = float(shift_P.std())
    skew = float((((shift_P - 1) / deviation) ** 3).mean()) if deviation > 0 else 0.0
    norms_M = np.square(items_MD).sum(1)
    one_P = first_PM @ norms_M / half - np.square(one_PD).sum(1)
    other_P = norms_M.sum() / half - first_PM @ norms_M / half - np.square(other_PD).sum(1)
    # Where two items are all that a half has in one point, there is no ratio.
    good_P = (one_P > 0) & (other_P > 0)
    ratios = np.log(one_P[good_P] / other_P[good_P]) / 2
    return Null(deviation, skew, float(ratios.std() * np.sqrt(half / 2)) if len(ratios) else 0.0)
