"""Validators that inform: against slow ones, and where the answer is known."""

import math

import numpy as np
import pytest

from worker.domains import target_risk


def test_dev_is_that_of_a_loop():
    generator = np.random.default_rng(0)
    wrong, weights = (generator.random(60) < 0.3).astype(float), generator.gamma(2.0, 0.5, 60)
    weighted = [one * other for one, other in zip(wrong, weights, strict=True)]
    mean_weighted, mean_weight = sum(weighted) / 60, sum(weights) / 60
    together = sum((a - mean_weighted) * (b - mean_weight) for a, b in zip(weighted, weights, strict=True)) / 59
    spread = sum((b - mean_weight) ** 2 for b in weights) / 59
    control = -together / spread
    expected = mean_weighted + control * mean_weight - control
    assert target_risk.deep_embedded_validation(wrong, weights) == pytest.approx(expected)
    assert target_risk.deep_embedded_validation(wrong, np.ones(60)) == pytest.approx(wrong.mean())


def test_the_nuclear_norm_is_the_sum_of_singular_values():
    generator = np.random.default_rng(1)
    scores = np.exp(generator.normal(size=(30, 4)))
    probabilities = scores / scores.sum(1, keepdims=True)
    singular = np.sqrt(np.linalg.eigvalsh(probabilities.T @ probabilities))
    assert target_risk.nuclear_norm(probabilities) == pytest.approx(singular.sum() / math.sqrt(30 * 4))
    assert target_risk.nuclear_norm(np.tile(np.eye(4), (5, 1))) == pytest.approx(1.0)
    # Sure of one class only, or sure of nothing.
    assert target_risk.nuclear_norm(np.eye(4)[np.zeros(20, int)]) == pytest.approx(0.5)
    assert target_risk.nuclear_norm(np.full((20, 4), 0.25)) == pytest.approx(0.25)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dev_foretells_mistakes_under_a_shift_of_the_items(seed):
    """A model that errs where the first feature is large, and a target that lies there more often."""
    generator = np.random.default_rng(seed)
    source, asked, target = (generator.normal(size=(1500, 8)) for _ in range(3))
    target[:, 0] += 1.0
    source_wrong, target_wrong = ((feats[:, 0] > 1.0).astype(float) for feats in (asked, target))
    weights = target_risk.weights(source, target, asked, seed)
    assert weights.mean() == pytest.approx(1.0, abs=0.25)
    told = target_risk.deep_embedded_validation(source_wrong, weights)
    assert abs(told - target_wrong.mean()) < 0.1 < target_wrong.mean() - source_wrong.mean()


@pytest.mark.parametrize("distance", [10.0, 1e4, 1e30])
def test_domains_that_a_line_tells_apart_foretell_nothing(distance):
    generator = np.random.default_rng(4)
    source, target, asked = (generator.normal(size=(200, 8)) for _ in range(3))
    asked[0, 0] = distance
    weights = target_risk.weights(source, target + distance, asked, 0)
    assert np.isfinite(weights).all()
    assert target_risk.deep_embedded_validation(np.ones(200), weights) is None


def test_so_many_items_of_equal_weight():
    assert target_risk.effective(np.full(40, 7.0)) == pytest.approx(40)
    assert target_risk.effective(np.array([1e40, 1e40, 1.0])) == pytest.approx(2)


def test_weights_are_even_without_a_shift():
    generator = np.random.default_rng(3)
    source, target, asked = (generator.normal(size=(800, 8)) for _ in range(3))
    weights = target_risk.weights(source, target, asked, 0)
    assert np.abs(weights - 1).max() < 0.5
