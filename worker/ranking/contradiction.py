"""Where order and expectation disagree: why a candidate stands below one that is expected to reach less. No torch.

The score is a sum of three parts (neighbours, ridge, prior), so the part that puts the candidate lower can be named.
"""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

_COST = "it costs more, and all else is equal"


def explained(row: Row, better: Sequence[Row]) -> str:
    """One sentence on the first candidate above that is expected to reach less; empty where there is none.

    Args:
        row: of the result's `candidates`.
        better: those above it, best first.
    """
    for other in better:
        if is_above(row, other):
            own, less = (one["expected_accuracy"]["value"] for one in (row, other))
            return (
                f"a probe on it is expected to reach more than on {other['backbone']} ({own:.3f} against {less:.3f}), "
                f"but it stands lower because {_why(row, other)}"
            )
    return ""


def is_above(row: Row, other: Row) -> bool:
    """Whether a candidate is visibly expected to reach more than another that saw the same images."""
    own, less = row["expected_accuracy"], other["expected_accuracy"]
    if own is None or less is None or row["stage"] != other["stage"]:
        return False
    return bool(round(own["value"], 3) > round(less["value"], 3))


def _why(row: Row, other: Row) -> str:
    """The part of the score that differs most, with its two numbers."""
    measured = [name for name in ("knn_loo", "ridge_loo") if row["scores"][name] is not None]
    weight = row["prior"]["weight"]
    told = {
        "knn_loo": "its nearest neighbours name fewer images right",
        "ridge_loo": "ridge that learned from all other images names fewer right",
        "prior": "the prior by ImageNet accuracy expects less of it",
    }
    numbers = {name: (row["scores"][name], other["scores"][name], (1 - weight) / len(measured)) for name in measured}
    numbers["prior"] = (row["prior"]["expected"], other["prior"]["expected"], weight)
    lost = {name: share * (less - own) for name, (own, less, share) in numbers.items()}
    most = max(lost, key=lambda name: lost[name])
    if lost[most] <= 0:
        return _COST
    own, less, share = numbers[most]
    return f"{told[most]} ({own:.3f} against {less:.3f}), which counts {share:.2f} in the score"
