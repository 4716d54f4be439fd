"""The corrected resampled t, against a version written out in loops and a table."""

import math

import numpy as np
import pytest
from scipy import stats

from worker.scores.resampled import NO_SPREAD, TOO_FEW, corrected, over_seeds


def slow(results: list[float], test_share: float) -> tuple[float, float, float, float]:
    """Nadeau and Bengio's formula, sum by sum."""
    num = len(results)
    mean = sum(results) / num
    variance = 0.0
    for value in results:
        variance += (value - mean) ** 2 / (num - 1)
    error = math.sqrt((1 / num + test_share) * variance)
    quantile = stats.t.ppf(0.975, num - 1)
    return mean, math.sqrt(variance), mean - quantile * error, mean + quantile * error


@pytest.mark.parametrize(("folds", "repeats"), [(2, 1), (5, 1), (5, 3), (10, 20)])
def test_equals_the_formula_written_out(folds: int, repeats: int) -> None:
    results = np.random.default_rng(folds).normal(0.1, 0.05, folds * repeats)
    found = corrected(results, 1 / (folds - 1))
    assert (found.mean, found.std, found.low, found.high) == pytest.approx(slow(list(results), 1 / (folds - 1)))
    assert found.num_results == folds * repeats
    assert found.reason is None


def test_equals_published_figures_of_the_statistic() -> None:
    """Ten differences of ten folds, for which the statistic mean / error was worked out by hand."""
    results = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    found = corrected(results, 1 / 9)
    error = math.sqrt((0.1 + 1 / 9) * 55 / 6)
    assert found.high is not None
    assert (found.high - found.mean) / error == pytest.approx(2.2621571628, abs=1e-9)


def test_is_wider_than_the_plain_interval_and_stays_so_with_more_repeats() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.8, 0.05, 5), rng.normal(0.8, 0.05, 100)
    for results in (few, many):
        found = corrected(results, 1 / 4)
        plain = stats.t.interval(0.95, len(results) - 1, results.mean(), stats.sem(results))
        assert found.low is not None
        assert found.low < plain[0]
    assert corrected(many, 1 / 4).high - corrected(many, 1 / 4).low > 0.09  # type: ignore[operator]


def test_covers_the_truth_where_the_plain_interval_does_not() -> None:
    """Means of k folds of one drawn sample: their scores are dependent, as those of overlapping training sets are."""
    rng, hits, plain_hits = np.random.default_rng(1), 0, 0
    for _ in range(400):
        # A set has its own luck, which all of its folds share: what the correction is for.
        results = 0.5 + rng.normal(0, 0.05 * math.sqrt(1 / 4)) + rng.normal(0, 0.05, 15)
        found = corrected(results, 1 / 4)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.5 <= found.high
        low, high = stats.t.interval(0.95, 14, results.mean(), stats.sem(results))
        plain_hits += low <= 0.5 <= high
    assert hits / 400 > 0.91
    assert plain_hits / 400 < 0.8


def test_says_why_there_is_no_interval() -> None:
    same = corrected(np.full(6, 0.1 + 0.2), 0.25)
    assert (same.low, same.high, same.std, same.reason) == (None, None, 0.0, NO_SPREAD)
    one = corrected(np.array([0.7]), 0.25)
    assert (one.mean, one.std, one.low, one.reason) == (0.7, None, None, TOO_FEW)


def test_stays_within_what_a_score_can_be() -> None:
    found = corrected(np.array([0.9, 1.0, 1.0, 0.6]), 1.0, (0.0, 1.0))
    assert found.high == 1.0


def test_refuses_nothing_and_no_training() -> None:
    with pytest.raises(ValueError, match="results and a share"):
        corrected(np.array([]), 0.25)
    with pytest.raises(ValueError, match="found 2 and 0"):
        corrected(np.array([0.1, 0.2]), 0)


def test_the_spread_over_seeds_needs_two_of_them() -> None:
    assert over_seeds([0.5], "draws") is None
    found = over_seeds([0.5, 0.6, 0.7], "draws")
    assert found is not None
    assert (found.value, found.num_seeds) == (pytest.approx(0.1), 3)
