"""Forecasts that are held against what came, on digits as they are."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from worker.forecasting import draws, more_images
from worker.forecasting.forecast import forecast
from worker.methods import few_shot
from worker.solvers.even import even_order
from worker.training import probing

Z = 1e-9


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.data.astype(np.float32), found.target.astype(np.int64)


def split(labels_N, seed, num_pool, num_test):
    order = even_order(labels_N, np.arange(len(labels_N)), np.random.default_rng(1000 + seed))
    return np.sort(order[:num_pool]), order[-num_test:]


@pytest.mark.parametrize("unit", [False, True])
def test_the_interval_holds_what_is_found_in_nearly_every_run(digits, unit):
    feats_ND, labels_N = digits
    held, errors, runs = 0, [], 16
    for seed in range(runs):
        pool, test = split(labels_N, seed, 150, 200)
        made = forecast(feats_ND[pool], labels_N[pool], pool, 10, seed, len(test), unit=unit).expected
        train = (feats_ND[pool], labels_N[pool], pool, pool, 10, seed)
        head = few_shot.fit(*train).head if unit else probing.fit(*train)[0]
        found = (head.logits(feats_ND[test]).argmax(1) == labels_N[test]).mean()
        held += made.low - Z <= found <= made.high + Z
        errors.append(found - made.value)
    assert held >= 13  # of 16: fewer would come once in a thousand times if each held with 95 %
    # Ridge stands for the head that is served, and lies under it on raw pixels: the error is on the careful side.
    assert -0.02 < np.mean(errors) < 0.05


def test_the_curve_of_half_of_the_images_leads_to_all_of_them(digits):
    feats_ND, labels_N = digits
    held, worth, reading = 0, [], []
    for seed in range(8):
        pool, _ = split(labels_N, seed, 600, 600)
        half = pool[even_order(labels_N[pool], pool, np.random.default_rng(seed))[:300]]
        told = forecast(feats_ND[half], labels_N[half], half, 10, seed, 600)
        twice = next(one for one in told.extrapolation if one.times == 2)
        found = draws.sample(feats_ND[pool], labels_N[pool], pool, 10, seed).points[-1].accuracy
        held += twice.low <= found <= twice.high
        worth.append(twice.gain)
        assert twice.num_samples == 600
        needed = told.reading.at(found)
        reading.append((needed.low or 0) <= 600 <= (needed.high or np.inf))
        assert twice.gain_low <= twice.gain <= twice.gain_high
    assert held >= 6
    assert sum(reading) >= 6
    assert min(worth) > 0


def test_a_curve_that_cannot_be_told_is_null_with_the_reason(digits):
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 40, 100)
    told = forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, 100, advise=True)
    assert told.fit is None
    assert "two images per class" in told.reason
    assert told.extrapolation == ()
    assert told.needs() is None
    assert told.expected is not None
    assert forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, 100, num_learned=400).expected is None


def test_chance_is_no_curve():
    chance = np.random.default_rng(0)
    feats_ND, labels_N = chance.normal(size=(200, 20)).astype(np.float32), np.arange(200) % 4
    told = forecast(feats_ND, labels_N, np.arange(200), 4, 0, 50, advise=True)
    assert told.fit is None
    assert "chance alone" in told.reason
    for row in told.more_images:
        assert (row.gain_points, row.low, row.high) == (None, None, None)
        assert told.reason in row.reason
    # By chance a little above one in four or below it: an expectation that says so, or none.
    assert told.expected is None or told.expected.low <= 0.25 <= told.expected.high


@pytest.mark.parametrize("seed", range(6))
def test_answers_under_the_largest_class_promise_no_accuracy(digits, seed):
    """Names drawn at random: left out, an item is what its class is short of, so a guess is right less often."""
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, seed, 300, 100)
    chance = np.random.default_rng(seed)
    dealt_N = np.where(chance.random(300) < 0.4, 0, chance.integers(0, 10, 300))
    told = forecast(feats_ND[pool], dealt_N, pool, 10, seed, 100)
    assert told.expected is None
    assert "the largest class alone is 0." in told.untold


def test_one_picture_of_each_class_promises_no_accuracy(digits):
    feats_ND, labels_N = digits
    pool = np.array([np.flatnonzero(labels_N == label)[0] for label in range(10)])
    told = forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, 100)
    assert told.expected is None
    assert told.curve == ()
    assert "one picture to learn from" in told.untold


def test_labels_that_were_dealt_out_anew_promise_nothing_of_more_images(digits):
    feats_ND, labels_N = digits
    for seed in range(6):
        pool, _ = split(labels_N, seed, 300, 100)
        dealt_N = np.random.default_rng(seed).permutation(labels_N[pool])
        rows = forecast(feats_ND[pool], dealt_N, pool, 10, seed, 100, advise=True).more_images
        assert {row.gain_points for row in rows} == {None}
        assert all(row.reason for row in rows)


def test_a_class_that_is_too_small_to_be_halved_gets_no_number(digits):
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 200, 100)
    pool = np.concatenate([pool[labels_N[pool] != 3], pool[labels_N[pool] == 3][:3]])
    rows = forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, 100, advise=True).more_images
    assert rows[-1].label == 3
    assert (rows[-1].gain_points, rows[-1].low, rows[-1].high) == (None, None, None)
    assert f"at least {more_images.MIN_PICTURES} different pictures" in rows[-1].reason
    told = [row.gain_points for row in rows[:-1]]
    assert told == sorted(told, reverse=True)


def test_the_same_seed_tells_the_same_and_a_smaller_test_set_is_less_certain(digits):
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 200, 100)
    made = [forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, size) for size in (1000, 1000, 50)]
    assert made[0] == made[1]
    widths = [one.expected.high - one.expected.low for one in made]
    assert widths[2] > 1.5 * widths[0]


def test_copies_count_as_one_picture(digits):
    """Ten copies of everything are no more than one of each: the level is as uncertain, and no copy names its twin."""
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 100, 100)
    once = forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, 10_000).expected
    tenfold = np.tile(pool, 10)
    often = forecast(feats_ND[tenfold], labels_N[tenfold], tenfold, 10, 0, 10_000).expected
    assert often.value == pytest.approx(once.value, abs=0.04)
    assert often.high - often.low > 0.7 * (once.high - once.low)


@pytest.mark.parametrize(("num_pictures", "num_test"), [(1, 10), (20, 0)])
def test_nothing_to_foretell_is_refused(digits, num_pictures, num_test):
    feats_ND, labels_N = digits
    with pytest.raises(ValueError, match="at least two different pictures and one test item"):
        forecast(feats_ND[:20], labels_N[:20], np.arange(20) % num_pictures, 10, 0, num_test)
