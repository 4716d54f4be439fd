"""The report's learning curve: what fewer labels would have given, and what a pretrained backbone is worth in labels.

The points are those of `draws`, of the probe on frozen features, never scored on the test split. `aulc` is the mean
accuracy over the curve, on a logarithmic axis: the area under it on log2 n, divided by its width. `label_multiplier` is
n_scratch / n_transfer at equal accuracy: how many labels a network from scratch needs for each that the transfer needs.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.outcome import Scratch
from worker.forecasting.forecast import Forecast
from worker.scores import intervals

MULTIPLIER = ("label_multiplier", "label_multiplier_low", "label_multiplier_high")
NO_SCRATCH = "there is no network from scratch to compare with"


def document(forecast: Forecast, scratch: Scratch | None, labels_N: NDArray[np.int64]) -> dict[str, Any]:
    """`points, fit, labels_needed, aulc, label_multiplier`, and in `reasons` why any of them is null.

    Args:
        forecast: whose curve it is.
        scratch: the network from scratch.
        labels_N: of every image of the dataset.
    """
    sizes = [one.learned for one in forecast.curve]
    accuracies = [one.accuracy for one in forecast.curve]
    area = aulc(sizes, accuracies)
    found, untold = multiplier(sizes, accuracies, scratch, labels_N, forecast.reason)
    reasons = {
        "fit": forecast.reason,
        "labels_needed": forecast.reason,
        "aulc": None if area is not None else "a single size has no area",
        **untold,
    }
    return {
        "points": forecast.points(),
        "fit": forecast.fit,
        "extrapolation": forecast.extrapolations(),
        "labels_needed": forecast.needs(),
        "aulc": area,
        **found,
        "reasons": {name: why for name, why in reasons.items() if why is not None},
    }


def aulc(sizes: list[float], accuracies: list[float]) -> float | None:
    """Mean accuracy over log2 of the size, by trapezoids; None for a single size."""
    if len(sizes) < 2:
        return None
    places = np.log2(sizes)
    steps = zip(pairwise(places), pairwise(accuracies), strict=True)
    area = sum((right - left) * (low + high) / 2 for (left, right), (low, high) in steps)
    return float(area / (places[-1] - places[0]))


def size_at(sizes: list[float], accuracies: list[float], accuracy: float) -> float | None:
    """The size at which the curve comes to an accuracy, between points on log2 of the size; None outside the curve.

    A point that is below an earlier one is noise: what was reached stays reached.
    """
    reached = np.maximum.accumulate(accuracies)
    if not reached[0] <= accuracy <= reached[-1]:
        return None
    above = int(np.searchsorted(reached, accuracy))
    if above == 0:
        return float(sizes[0])
    low, high = reached[above - 1], reached[above]
    left, right = np.log2(sizes[above - 1]), np.log2(sizes[above])
    return float(2 ** (left + (right - left) * (accuracy - low) / (high - low)))


def multiplier(
    sizes: list[float],
    accuracies: list[float],
    scratch: Scratch | None,
    labels_N: NDArray[np.int64],
    shapeless: str | None = None,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The multiplier and its bounds, and why any of them is null.

    Args:
        sizes: images that stand behind the answer at each point of the curve.
        accuracies: at these points.
        scratch: the network from scratch.
        labels_N: of every image of the dataset.
        shapeless: why the points tell no curve: where they rise by chance alone, so do the sizes that they are read at.
    """
    missing = NO_SCRATCH if scratch is None else scratch.unfair or scratch.hurried or shapeless
    if scratch is None or missing:
        return dict.fromkeys(MULTIPLIER), dict.fromkeys(MULTIPLIER, str(missing))
    right_N = scratch.selection.logits.argmax(1) == labels_N[scratch.selection.rows]
    accuracy = float(right_N.mean())
    size = size_at(sizes, accuracies, accuracy)
    if size is None:
        reason = _apart(sizes, accuracies, accuracy, scratch.num_learned)
        return dict.fromkeys(MULTIPLIER), dict.fromkeys(MULTIPLIER, reason)
    low, high = intervals.clopper_pearson(int(right_N.sum()), len(right_N))
    found: dict[str, float | None] = {"label_multiplier": scratch.num_learned / size}
    untold = {}
    # The more the network from scratch may have right, the more images the transfer needs for as much.
    for name, bound in zip(MULTIPLIER[1:], (high, low), strict=True):
        size = size_at(sizes, accuracies, bound)
        found[name] = scratch.num_learned / size if size else None
        if not size:
            untold[name] = (
                f"the {len(right_N)} held-out images allow the network from scratch an accuracy of {bound:.3f}, which "
                f"is outside the transfer's curve ({accuracies[0]:.3f} to {max(accuracies):.3f})"
            )
    return found, untold


def _apart(sizes: list[float], accuracies: list[float], accuracy: float, num_scratch: int) -> str:
    """Why the curves do not meet, with the bound that is known all the same."""
    met = f"accuracy {accuracy:.3f} of the network from scratch, which has {num_scratch} images"
    if accuracy > max(accuracies):
        return f"the curves do not meet: the transfer stays below {met}"
    bound = num_scratch / sizes[0]
    return f"the curves do not meet: {sizes[0]:.0f} images give the transfer more than {met}; it is above {bound:.1f}"
