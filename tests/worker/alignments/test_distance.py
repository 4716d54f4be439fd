"""Distances between domains against loops over items."""

import numpy as np
import pytest

from worker.alignments import distance


@pytest.fixture
def domains():
    rng = np.random.default_rng(4)
    return rng.normal(size=(30, 5)), rng.normal(size=(40, 5)) * 1.5 + 0.5


def test_coral_distance_is_the_papers(domains):
    first, second = domains
    expected = 0.0
    for row in np.cov(first.T, bias=True) - np.cov(second.T, bias=True):
        for value in row:
            expected += value**2 / (4 * 5**2)
    assert distance.coral(first, second) == pytest.approx(expected, rel=1e-5)
    assert distance.coral(first, first) == 0.0


def test_mmd_is_a_double_loop(domains):
    first, second = domains

    def kernel(a, b):
        return np.exp(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (2 * 1.7**2))

    inside = [
        sum(kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j)
        / (len(rows) * (len(rows) - 1))
        for rows in (first, second)
    ]
    across = sum(kernel(a, b) for a in first for b in second) / (len(first) * len(second))
    assert distance.mmd(first, second, 1.7, 0) == pytest.approx(sum(inside) - 2 * across, rel=1e-5)


def test_bandwidth_is_the_median_distance(domains):
    both = np.concatenate(domains)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(both) for b in both[i + 1 :]]
    assert distance.bandwidth(*domains, seed=0) == pytest.approx(np.median(pairs), rel=1e-5)


def test_proxy_distance_knows_one_domain_from_two():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(400, 5))
    same, error = distance.proxy_a(rows[:100], rows[100:200], rows[200:300], rows[300:], seed=0)
    assert same < 0.5
    assert 0.35 < error < 0.65
    far = rows + 10
    apart, error = distance.proxy_a(rows[:100], far[100:200], rows[200:300], far[300:], seed=0)
    assert (apart, error) == (2.0, 0.0)
