"""The Fréchet distance against matrix roots."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from worker.alignments import frechet
from worker.alignments.frechet import frechet as distance


@pytest.mark.parametrize("width", [4, 60])
def test_distance_is_that_of_matrix_roots(width: int) -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, width)) + 0.3
    second = rng.normal(size=(50, width)) * 1.4
    one, two = np.cov(first.T), np.cov(second.T)
    # With more features than items a covariance has no inverse, and its root is taken beside the singular point.
    root = sqrtm(one + 1e-10 * np.eye(width)) @ (two + 1e-10 * np.eye(width)) @ sqrtm(one + 1e-10 * np.eye(width))
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one + two - 2 * np.real(sqrtm(root)))
    assert distance(first, second, 0) == pytest.approx(expected, rel=1e-3)


def test_it_is_a_squared_distance() -> None:
    rng = np.random.default_rng(1)
    feats = rng.normal(size=(30, 50))
    assert distance(feats, feats, 0) == pytest.approx(0, abs=1e-9)
    assert distance(feats, feats + 2, 0) == pytest.approx(4 * 50, rel=1e-6)
    assert distance(feats, 3 * feats, 0) == pytest.approx(distance(3 * feats, feats, 0), rel=1e-9)


def test_items_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "SAMPLES", 10)
    rng = np.random.default_rng(2)
    assert distance(rng.normal(size=(100, 3)), rng.normal(size=(90, 3)) + 5, 0) > 40
    with pytest.raises(ValueError, match="at least two"):
        distance(np.ones((1, 3)), np.ones((5, 3)), 0)
