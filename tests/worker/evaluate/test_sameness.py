"""Words for how near a transfer that was carried out again came."""

import numpy as np
import pytest

from worker.evaluate import sameness


def words(before: np.ndarray, now: np.ndarray, then: dict | None = None, since: dict | None = None) -> str:
    rows = sameness.metric_rows(then or {}, since or {})
    return sameness.verdict(sameness.compare(before, now), rows)


BEFORE = np.tile([[0.7, 0.3], [0.2, 0.8]], (100, 1)).astype(np.float32)


def test_rounding_is_no_difference() -> None:
    found = sameness.compare(BEFORE, BEFORE.astype(np.float64) + 1e-8)
    assert (found.num_items, found.share_equal) == (200, 1.0)
    assert found.max_difference < 1e-7
    assert words(BEFORE, BEFORE.astype(np.float64) + 1e-8) == "identical"


def test_between_the_bounds_it_is_equivalent() -> None:
    moved = BEFORE.copy()
    moved[0] = [0.4, 0.6]
    assert words(BEFORE, moved) == "equivalent"
    assert words(BEFORE, BEFORE + 0.01) == "equivalent"
    assert words(BEFORE, BEFORE * [1, 0.9] + [0.1 * 0.3, 0]) == "different"
    moved[:4] = BEFORE[:4, ::-1]
    assert words(BEFORE, moved) == "different"


def test_a_score_that_moved_makes_it_different_but_a_likelihood_does_not() -> None:
    near = BEFORE + 1e-3
    assert words(BEFORE, near, {"test_accuracy": 0.9, "test_nll": 0.3}, {"test_accuracy": 0.9, "test_nll": 0.5}) == (
        "equivalent"
    )
    assert words(BEFORE, near, {"test_macro_f1": 0.9}, {"test_macro_f1": 0.88}) == "different"


def test_metrics_are_told_one_by_one() -> None:
    rows = sameness.metric_rows({"a": 0.5, "ece": None}, {"a": 0.75, "new": 1})
    assert rows == [
        {"name": "a", "then": 0.5, "now": 0.75, "difference": 0.25},
        {"name": "ece", "then": None, "now": None, "difference": None},
        {"name": "new", "then": None, "now": 1, "difference": None},
    ]


def test_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        sameness.compare(BEFORE, BEFORE[:5])
    with pytest.raises(ValueError, match="at least one"):
        sameness.compare(BEFORE[:0], BEFORE[:0])
