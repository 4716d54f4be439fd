"""The noise model against a loop, on labels whose noise is known."""

import math

import numpy as np
import pytest

from worker.advice import noise


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


def test_rates_are_those_of_the_loop():
    logits, labels, _ = sampled(150, 4, 0.1, 0)
    found = noise.fit(logits, labels)
    profile = {
        rate: max(likelihood(logits, labels, temperature, rate) for temperature in np.geomspace(0.2, 2.0, 25))
        for rate in np.linspace(0.0, 0.3, 31)
    }
    top = max(profile.values())
    assert found.rate == pytest.approx(max(profile, key=profile.get), abs=0.015)
    most = max(rate for rate, value in profile.items() if value >= top - 0.5)
    assert found.possible_rate == pytest.approx(most, abs=0.015)
    assert found.ratio == pytest.approx(2 * (top - profile[0.0]), abs=0.2)
    own = [likelihood(logits[[item]], labels[[item]], found.temperature, 0.0) for item in range(150)]
    for wrong, log_own in zip(found.wrong_N, own, strict=True):
        anew = found.rate * (1 - math.exp(log_own)) / 3
        assert wrong == pytest.approx(anew / (anew + (1 - found.rate) * math.exp(log_own)))


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("rate", [0.05, 0.15])
def test_the_share_of_wrong_labels_is_found(num_classes, rate):
    logits, labels, wrong = sampled(3000, num_classes, rate, 1, sharpness=6.0)
    found = noise.fit(logits, labels)
    assert found.rate == pytest.approx(wrong.mean(), abs=0.02)
    assert found.rate <= found.possible_rate <= found.rate + 0.03
    # Probabilities mean what they say.
    listed = found.wrong_N > 0.5
    assert wrong[listed].mean() == pytest.approx(found.wrong_N[listed].mean(), abs=0.08)
    assert found.wrong_N.sum() == pytest.approx(wrong.sum(), rel=0.25)


def test_no_number_is_infinite():
    logits = np.array([[0.0, 900.0], [900.0, 0.0], [900.0, 0.0], [0.0, 900.0]])
    found = noise.fit(logits, np.array([0, 0, 0, 1]))
    assert np.isfinite([found.rate, found.ratio, found.temperature, found.possible_rate, *found.wrong_N]).all()
    assert found.possible_N[0] > 0.9
