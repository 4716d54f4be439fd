"""Did the transfer help: a word for the paired interval of the gain over a baseline. Torch-free.

The interval comes from selection data, never from the test set, which only reports. Negative transfer: source
knowledge lowers target performance (survey, arXiv 2009.00909).
"""

from typing import Literal, TypedDict

from worker.scores.intervals import Interval

Verdict = Literal["positive", "none", "negative"]


class Gain(TypedDict):
    """Accuracy of the transfer minus that of the baseline ``over``, with its paired 95 % interval."""

    over: str
    value: float
    low: float
    high: float


def verdict(difference: Interval) -> Verdict:
    """``positive`` or ``negative`` when the whole interval is on one side of 0, else ``none`` (no evidence)."""
    if difference.low > 0:
        return "positive"
    return "negative" if difference.high < 0 else "none"


def gain(over: str, difference: Interval) -> Gain:
    """The report's ``gain`` entry."""
    return Gain(over=over, value=difference.value, low=difference.low, high=difference.high)


def relative_error_reduction(accuracy: float, baseline_accuracy: float) -> float | None:
    """Share of the baseline's errors that are gone, 1 - error / baseline error; negative when errors were added.

    Comparable between data sets where plain gains are not. Null when the baseline makes no error.
    """
    if baseline_accuracy >= 1:
        return None
    return 1 - (1 - accuracy) / (1 - baseline_accuracy)
