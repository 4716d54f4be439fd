"""The noise model against a loop, on labels whose noise is known."""

import math

import numpy as np
import pytest

from worker.advice import noise
from worker.evaluate import calibration


def sampled(num, num_classes, rate, seed, sharpness=3.0):
    """Logits, labels drawn from their softmax, some of them drawn anew; and which were."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, num_classes)) * sharpness
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    wrong = rng.random(num) < rate
    labels[wrong] = (labels[wrong] + rng.integers(1, num_classes, wrong.sum())) % num_classes
    return logits, labels, wrong


def likelihood(logits, labels, temperature, rate):
    """Of the labels, item by item."""
    total = 0.0
    for row, label in zip(logits / temperature, labels, strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        own = powers[label] / sum(powers)
        total += math.log((1 - rate) * own + rate * (1 - own) / (len(row) - 1))
    return total


def test_it_is_the_best_of_a_grid():
    logits, labels, _ = sampled(150, 4, 0.1, 0)
    found = noise.fit(logits, labels)
    best = likelihood(logits, labels, found.temperature, found.rate)
    for temperature in np.linspace(0.3, 2.0, 18):
        for rate in np.linspace(0.0, 0.3, 13):
            assert likelihood(logits, labels, temperature, rate) <= best + 0.1
    plain = calibration.fit_temperature(logits, labels)
    assert found.ratio == pytest.approx(2 * (best - likelihood(logits, labels, plain, 0.0)), rel=1e-6)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("rate", [0.05, 0.15])
def test_the_share_of_wrong_labels_is_found(num_classes, rate):
    logits, labels, wrong = sampled(3000, num_classes, rate, 1, sharpness=6.0)
    found = noise.fit(logits, labels)
    assert found.rate == pytest.approx(wrong.mean(), abs=0.02)
    # Probabilities mean what they say.
    listed = found.wrong_N > 0.5
    assert wrong[listed].mean() == pytest.approx(found.wrong_N[listed].mean(), abs=0.08)
    assert found.wrong_N.sum() == pytest.approx(wrong.sum(), rel=0.25)


def test_doubt_is_no_noise():
    """A model that is often wrong, and knows how often, has no wrong labels to show: of twenty sets, few seem noisy."""
    ratios = [noise.fit(*sampled(400, 5, 0.0, seed, sharpness=1.0)[:2]).ratio for seed in range(20)]
    assert sum(ratio > 2.71 for ratio in ratios) <= 3


def test_no_number_is_infinite():
    logits = np.array([[0.0, 900.0], [900.0, 0.0], [900.0, 0.0], [0.0, 900.0]])
    found = noise.fit(logits, np.array([0, 0, 0, 1]))
    assert np.isfinite([found.rate, found.temperature, found.ratio, *found.wrong_N]).all()
    assert found.wrong_N[0] > 0.9
