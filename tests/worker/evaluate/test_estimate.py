"""Accuracy without labels: against a loop, on models whose confidence is right, and on one whose is not."""

import math
from itertools import pairwise

import numpy as np
import pytest

from worker.contract.adaptation import Confidence
from worker.evaluate import estimate
from worker.evaluate.estimate import negative_entropy


def confidence(known_K, right_K, asked_M):
    """Answers of three classes, each right as often as the others."""
    return Confidence(known_K, right_K, asked_M, np.arange(len(known_K)) % 3)


def by_loop(known, right, asked):
    """Equations 1 and 2 of arXiv 2201.04234 by trying every threshold between two known scores."""
    wrong = sum(not one for one in right) / len(right)
    candidates = [(low + high) / 2 for low, high in pairwise(sorted(known))]
    candidates += [min(known) - 1, max(known) + 1]
    best = min(candidates, key=lambda t: abs(sum(score < t for score in known) / len(known) - wrong))
    return sum(score >= best for score in asked) / len(asked)


def world(num, seed, shift=0.0):
    """Answers of a model that is right as often as it says; `shift` makes it less sure, and right less often."""
    chance = np.random.default_rng(seed)
    top_N = np.clip(chance.beta(6, 2, num) - shift, 0.4, 0.999)
    probabilities_NC = np.stack([top_N, (1 - top_N) * 0.6, (1 - top_N) * 0.4], axis=1)
    return probabilities_NC, chance.random(num) < top_N


def test_the_estimate_is_that_of_a_loop_over_thresholds():
    for seed in range(5):
        known, right = world(60, seed)
        asked, _ = world(45, 100 + seed, shift=0.2)
        scores = negative_entropy(known), negative_entropy(asked)
        found = estimate.accuracy(confidence(scores[0], right, scores[1]))
        # Between two known scores any threshold does for eq. 1; those asked about may lie on either side of it.
        between = np.sort(scores[0])[[(~right).sum() - 1, (~right).sum()]]
        unsure = ((scores[1] > between[0]) & (scores[1] < between[1])).mean()
        assert abs(found - by_loop(scores[0].tolist(), right.tolist(), scores[1].tolist())) <= unsure + 1e-12


def test_entropy_is_that_of_a_loop():
    probabilities = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], np.float32)
    wanted = [0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2), 0.0]
    np.testing.assert_allclose(negative_entropy(probabilities), wanted, atol=1e-6)


def clear_and_hard(num, seed, share_hard):
    """Items that a model is sure of and mostly right about, and items that it is unsure of and mostly wrong about."""
    chance = np.random.default_rng(seed)
    hard_N = chance.random(num) < share_hard
    top_N = np.where(hard_N, chance.uniform(0.4, 0.8, num), chance.uniform(0.7, 0.999, num))
    probabilities_NC = np.stack([top_N, (1 - top_N) * 0.6, (1 - top_N) * 0.4], axis=1)
    return probabilities_NC, chance.random(num) < np.where(hard_N, 0.1, 0.95)


@pytest.mark.parametrize("share_hard", [0.2, 0.4, 0.6])
def test_a_shift_that_confidence_shows_is_seen(share_hard):
    known, right = clear_and_hard(800, 1, 0.2)
    asked, truth = clear_and_hard(800, 2, share_hard)
    told = estimate.estimate(confidence(negative_entropy(known), right, negative_entropy(asked)), 0)
    assert told.value == pytest.approx(truth.mean(), abs=0.08)
    assert told.low <= told.value <= told.high
    assert told.known_accuracy == right.mean()
    if share_hard > 0.2:
        # What nothing but the known items would say is farther off.
        assert abs(told.value - truth.mean()) < abs(told.known_accuracy - truth.mean())


def test_a_shift_that_confidence_hides_is_not_seen_and_the_warning_says_so():
    known, right = world(400, 1)
    told = estimate.estimate(confidence(negative_entropy(known), right, negative_entropy(known)), 0)
    assert told.value == pytest.approx(right.mean())  # whatever the labels of the others are
    assert "mistakes that it is sure of are not seen" in told.warning


def test_a_model_that_is_less_sure_of_everything_is_told_too_low_and_the_warning_says_so():
    known, right = world(400, 1)
    asked, truth = world(400, 2, shift=0.15)
    told = estimate.estimate(confidence(negative_entropy(known), right, negative_entropy(asked)), 0)
    assert told.value < truth.mean() - 0.1
    assert "less sure of every image it falls too far" in told.warning


def test_the_interval_is_as_wide_as_the_spread_over_samples():
    values, widths = [], []
    for seed in range(60):
        (known, right), (asked, _) = world(150, seed), world(150, 1000 + seed)
        told = estimate.estimate(confidence(negative_entropy(known), right, negative_entropy(asked)), seed)
        values.append(told.value)
        widths.append(told.high - told.low)
    spread = 2 * 1.96 * np.std(values)
    assert 0.7 * spread < np.mean(widths) < 1.5 * spread


def test_all_right_and_all_wrong():
    scores = np.linspace(-1.0, 0.0, 40)
    assert estimate.accuracy(confidence(scores, np.ones(40, bool), scores)) == 1.0
    assert estimate.accuracy(confidence(scores, np.zeros(40, bool), scores)) == 0.0


@pytest.mark.parametrize(("num_known", "num_asked", "words"), [(29, 40, "30 items with known"), (40, 9, "10 items to")])
def test_few_items_give_the_reason_and_no_number(num_known, num_asked, words):
    known = confidence(np.zeros(num_known), np.ones(num_known, bool), np.zeros(num_asked))
    told, reason = estimate.section(known, 0, 0.5)
    assert told is None
    assert words in reason


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_guesses_has_no_estimate(seed):
    """Sixty classes and names drawn at random: one answer in sixty is right, and where the threshold falls is luck."""
    chance = np.random.default_rng(seed)
    labels_K, named_K = chance.integers(0, 60, (2, 300))
    asked_M = chance.uniform(-1.0, 0.0, 80)
    told, reason = estimate.section(
        Confidence(chance.uniform(-2.0, -0.5, 300), labels_K == named_K, asked_M, labels_K), 0, None
    )
    assert told is None
    assert "better than always naming the largest class" in reason


def test_a_model_that_only_knows_the_largest_class_has_no_estimate():
    labels_K = np.array([0] * 80 + [1] * 20)
    scores = np.linspace(-1.0, 0.0, 100)
    told, reason = estimate.section(Confidence(scores, labels_K == 0, scores, labels_K), 0, 0.8)
    assert told is None
    assert "found 0.800 of the 100 known answers right, and 0.800 of them of one class" in reason
