"""Did the same transfer give the same model: predictions item by item, metrics one by one. Torch-free.

Shape legend: N items, C classes.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Probabilities are kept in float32; sums in another order move the last bits.
IDENTICAL_MAX = 1e-6
# One item in a hundred may fall on the other side, no score may move by more than a point, and an item's
# probabilities by two points on average: equal answers with other confidence are no equal model.
EQUIVALENT_SHARE, EQUIVALENT_METRIC, EQUIVALENT_DISTANCE = 0.99, 0.01, 0.02
BOUNDS = {
    "identical": f"every prediction is equal and no probability differs by more than {IDENTICAL_MAX:g}",
    "equivalent": f"at least {EQUIVALENT_SHARE:.0%} of predictions are equal, no score differs by more than "
    f"{EQUIVALENT_METRIC:g}, and the total variation of an item's probabilities is at most {EQUIVALENT_DISTANCE:g} "
    "on average",
    "different": "anything else",
}
# Scores between 0 and 1 that the bound is for; others (likelihoods, counts) are reported only.
SCORES = ("accuracy", "precision", "recall", "f1")

Verdict = Literal["identical", "equivalent", "different"]


@dataclass(frozen=True)
class Sameness:
    """How near two sets of predictions for the same items are; total variation is half the sum of all differences."""

    num_items: int
    share_equal: float
    max_difference: float
    mean_total_variation: float


def compare(before_NC: NDArray[np.floating], now_NC: NDArray[np.floating]) -> Sameness:
    """Two models' probabilities for the same items.

    Shape:
        both [N, C], N >= 1

    Raises:
        ValueError: when the shapes differ or there is no item.
    """
    if before_NC.shape != now_NC.shape or not len(before_NC):
        raise ValueError(f"Expected equal shapes of at least one item, found {before_NC.shape} and {now_NC.shape}.")
    apart_NC = np.abs(before_NC.astype(np.float64) - now_NC)
    equal_N = before_NC.argmax(1) == now_NC.argmax(1)
    return Sameness(len(before_NC), float(equal_N.mean()), float(apart_NC.max()), float(apart_NC.sum(1).mean() / 2))


def metric_rows(before: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """Every metric that either has, then and now; no difference where one of them is null."""
    rows = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        apart = None if old is None or new is None else float(new) - float(old)
        rows.append({"name": name, "then": old, "now": new, "difference": apart})
    return rows


def verdict(found: Sameness, rows: list[dict[str, Any]]) -> Verdict:
    """The word for it, by BOUNDS."""
    if found.share_equal == 1 and found.max_difference <= IDENTICAL_MAX:
        return "identical"
    moved = [abs(row["difference"]) for row in rows if row["difference"] is not None and row["name"].endswith(SCORES)]
    near = found.share_equal >= EQUIVALENT_SHARE and found.mean_total_variation <= EQUIVALENT_DISTANCE
    if near and max(moved, default=0.0) <= EQUIVALENT_METRIC:
        return "equivalent"
    return "different"
