import pytest

from worker.scores import verdict
from worker.scores.intervals import Interval


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.2, "positive"), (0.0, 0.2, "none"), (-0.1, 0.1, "none"), (-0.2, 0.0, "none"), (-0.2, -0.01, "negative")],
)
def test_verdict_needs_the_whole_interval_on_one_side(low: float, high: float, word: str) -> None:
    assert verdict.verdict(Interval((low + high) / 2, low, high, "tango")) == word


def test_gain_document() -> None:
    found = verdict.gain("scratch", Interval(0.1, 0.05, 0.15, "tango"))
    assert found == {"over": "scratch", "value": 0.1, "low": 0.05, "high": 0.15}


def test_relative_error_reduction() -> None:
    assert verdict.relative_error_reduction(0.9, 0.8) == pytest.approx(0.5)
    assert verdict.relative_error_reduction(0.7, 0.8) == pytest.approx(-0.5)
    assert verdict.relative_error_reduction(0.9, 1.0) is None
