"""Labels needed for an accuracy: against a loop, and on curves that are known."""

import numpy as np
import pytest

from worker.forecasting import labels_needed
from worker.forecasting.labels_needed import FEWER, FORETOLD, NOT_REACHED, SEEN, Reach, Reading
from worker.forecasting.power_law import PowerLaw, Seen, weigh

SIZES = np.array([100.0, 250.0, 500.0, 1000.0])
REACH = Reach(100.0, 1000)


def law(a, b, c, *, noise=0.006, seed=0):
    chance = np.random.default_rng(seed)
    errors_S = a * SIZES**-b + c + noise * chance.standard_normal(4)
    seen = Seen(SIZES, errors_S, np.full(4, noise**2), 2000)
    return weigh(seen).draw(4000, chance)


def one_curve(level, share, exponent):
    return PowerLaw(1000.0, *(np.full(50, value) for value in (level, share, exponent)), np.full(50, 1 / 50))


def by_loop(curves, errors_B):
    """The size of each curve by bisection of the error itself, on a logarithmic axis; infinite beyond 1e12."""
    found = []
    for place, error in enumerate(errors_B):
        values = (one[place : place + 1] for one in (curves.level_K, curves.share_K, curves.exponent_K))
        single = PowerLaw(curves.size, *values, np.ones(1))
        low, high = 1e-6, 1e12
        if single.error(high)[0] > error:
            found.append(np.inf)
            continue
        for _ in range(80):
            middle = np.sqrt(low * high)
            low, high = (middle, high) if single.error(middle)[0] > error else (low, middle)
        found.append(high)
    return np.array(found)


def test_sizes_are_those_of_a_bisection():
    curves = law(3.0, 0.6, 0.1)
    rows = slice(0, 30)
    some = PowerLaw(curves.size, *(one[rows] for one in (
        curves.level_K, curves.share_K, curves.exponent_K, curves.weight_K
    )))  # fmt: skip
    errors_B = np.linspace(0.02, 0.4, 30)
    found, wanted = some.size_at(errors_B), by_loop(some, errors_B)
    near = wanted < 1e10
    assert 10 < near.sum() < 30
    np.testing.assert_allclose(found[near], wanted[near], rtol=1e-6)
    assert (found[~near] > 1e10).all()


@pytest.mark.parametrize(("a", "b", "c", "accuracy"), [(3.0, 0.6, 0.1, 0.87), (20.0, 1.0, 0.2, 0.79), (1, 0.3, 0, 0.9)])
def test_the_interval_holds_the_number_that_is_true(a, b, c, accuracy):
    true = ((1 - accuracy - c) / a) ** (-1 / b)
    assert 1000 < true < 4000
    inside = 0
    for seed in range(20):
        row = Reading(law(a, b, c, seed=seed), np.zeros(4000), REACH).at(accuracy)
        inside += (row.low or 0) <= true <= (row.high or np.inf)
        assert row.low is None or row.high is None or row.low <= row.high
    assert inside >= 17


def test_each_accuracy_is_told_where_the_curve_can_tell_it():
    curves = one_curve(0.2, 1.0, 0.5)  # error 0.2 with 1000 images, 0.632 with 100, 0.1 with 4000; down to 0
    told = {accuracy: Reading(curves, np.zeros(50), REACH).at(accuracy) for accuracy in (0.3, 0.6, 0.85, 0.95)}
    assert [one.outcome for one in told.values()] == [FEWER, SEEN, FORETOLD, NOT_REACHED]
    assert (told[0.6].num_samples, told[0.6].low, told[0.6].high) == (250, 250, 250)
    assert told[0.85].num_samples == 1778  # 1000 * (0.2 / 0.15)^2, rounded up
    assert (told[0.3].num_samples, told[0.3].low, told[0.3].high, told[0.3].probability) == (None, None, None, 1.0)
    assert (told[0.95].num_samples, told[0.95].high, told[0.95].probability) == (None, None, 0.0)
    assert "not reached within what the curve can tell, 4000 labels" in told[0.95].sentence
    assert "fewer than the 100 labels" in told[0.3].sentence


def test_a_curve_that_ends_above_reaches_nothing_below():
    flat = one_curve(0.2, 0.5, 0.5)  # falls to 0.1 at most
    row = Reading(flat, np.zeros(50), REACH).at(0.95)
    assert (row.outcome, row.probability, row.low) == (NOT_REACHED, 0.0, None)


def test_an_interval_without_an_end_says_so():
    curves = one_curve(0.2, 1.0, 0.5)
    offsets = np.where(np.arange(50) < 10, -0.2, 0.0)  # a fifth of the classifiers may be far worse
    row = Reading(curves, offsets, REACH).at(0.85)
    assert (row.num_samples, row.low, row.high, row.probability) == (1778, 1778, None, 0.8)
    assert row.sentence == "0.85 needs about 1778 labels (1778 to more than 4000)"


def test_what_stands_between_the_curve_and_the_served_classifier_widens_the_interval():
    curves, chance = law(3.0, 0.6, 0.1), np.random.default_rng(0)
    sure = Reading(curves, np.zeros(4000), REACH).at(0.85)
    unsure = Reading(curves, 0.02 * chance.standard_normal(4000), REACH).at(0.85)
    assert None not in (sure.low, unsure.low)
    assert unsure.low < sure.low


def test_more_is_asked_for_more():
    rows = Reading(law(3.0, 0.6, 0.05), np.zeros(4000), REACH).ladder()
    assert [one.accuracy for one in rows] == list(labels_needed.ACCURACIES)
    chances = [one.probability for one in rows]
    assert chances == sorted(chances, reverse=True)
    numbers = [one.num_samples for one in rows if one.num_samples]
    assert len(numbers) >= 3
    assert numbers == sorted(numbers)
