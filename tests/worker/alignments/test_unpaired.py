"""Unpaired alignments against SciPy, scikit-learn and POT, and what they promise."""

import subprocess
import sys
import tracemalloc

import numpy as np
import ot
import pytest
import scipy.linalg
from sklearn.covariance import oas as sklearn_oas
from sklearn.preprocessing import StandardScaler

from worker.alignments import unpaired
from worker.alignments.moments import moments, oas, shrink

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def domains():
    """Two domains of 12 features; the first is a linear image of the second, plus noise."""
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(12, 12))
    fixed = rng.gamma(2.0, size=(400, 12)) @ mix
    moving = (rng.gamma(2.0, size=(300, 12)) @ mix) @ rng.normal(size=(12, 12)) * 0.4 + rng.normal(size=12) * 3
    return moving, fixed


def test_z_score_is_standardising_and_going_back(domains):
    moving, fixed = domains
    back = StandardScaler().fit(fixed)
    expected = back.inverse_transform(StandardScaler().fit_transform(moving))
    np.testing.assert_allclose(unpaired.z_score(moving, fixed).apply(moving), expected, **CLOSE)
    np.testing.assert_allclose(
        unpaired.standardising(moving).apply(moving), StandardScaler().fit_transform(moving), **CLOSE
    )


def test_moment_matching_matches_the_moments_of_its_order(domains):
    moving, fixed = domains
    first = unpaired.moment_matching(moving, fixed, 1)
    np.testing.assert_allclose(first.apply(moving).mean(0), fixed.mean(0), **CLOSE)
    np.testing.assert_allclose(first.apply(moving).std(0), moving.std(0), **CLOSE)
    second = unpaired.moment_matching(moving, fixed, 2)
    np.testing.assert_allclose(second.apply(moving).std(0), fixed.std(0), **CLOSE)
    with pytest.raises(ValueError, match="order"):
        unpaired.moment_matching(moving, fixed, 3)


def test_zca_is_the_symmetric_whitening(domains):
    moving, _ = domains
    covariance = np.cov(moving.T, bias=True)
    expected = (moving - moving.mean(0)) @ scipy.linalg.inv(scipy.linalg.sqrtm(covariance)).real
    fitted = unpaired.zca(moving, 0.0)
    np.testing.assert_allclose(fitted.apply(moving), expected, **CLOSE)
    np.testing.assert_allclose(np.cov(fitted.apply(moving).T, bias=True), np.eye(12), atol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_coral_equals_the_square_roots_of_scipy(domains, shrinkage):
    moving, fixed = domains

    def covariance(rows):
        found = np.cov(rows.T, bias=True)
        return (1 - shrinkage) * found + shrinkage * np.trace(found) / len(found) * np.eye(len(found))

    whiten = scipy.linalg.inv(scipy.linalg.sqrtm(covariance(moving)))
    expected = (moving - moving.mean(0)) @ (whiten @ scipy.linalg.sqrtm(covariance(fixed))).real + fixed.mean(0)
    np.testing.assert_allclose(unpaired.coral(moving, fixed, shrinkage, shrinkage).apply(moving), expected, **CLOSE)


@pytest.mark.parametrize("method", [unpaired.coral, unpaired.whitening, unpaired.gaussian_transport])
def test_without_shrinkage_mean_and_covariance_become_those_of_the_other_domain(domains, method):
    moving, fixed = domains
    moved = method(moving, fixed, 0.0, 0.0).apply(moving)
    np.testing.assert_allclose(moved.mean(0), fixed.mean(0), **CLOSE)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(fixed.T) * 300 / 299 * 399 / 400, rtol=1e-5, atol=1e-5)


def test_whitening_by_correlations_and_its_limit(domains):
    moving, fixed = domains

    def half(rows, exponent):
        scale = np.diag(rows.std(0))
        correlation = np.corrcoef(rows.T)
        root = scipy.linalg.sqrtm(correlation).real
        return np.linalg.inv(scale) @ np.linalg.inv(root) if exponent < 0 else root @ scale

    expected = (moving - moving.mean(0)) @ half(moving, -1) @ half(fixed, 1) + fixed.mean(0)
    np.testing.assert_allclose(unpaired.whitening(moving, fixed, 0.0, 0.0).apply(moving), expected, **CLOSE)
    fully = unpaired.whitening(moving, fixed, 1.0, 1.0)
    np.testing.assert_allclose(fully.apply(moving), unpaired.z_score(moving, fixed).apply(moving), **CLOSE)


def test_gaussian_transport_equals_pot_from_samples_and_the_formula(domains):
    moving, fixed = domains
    fitted = unpaired.gaussian_transport(moving, fixed, 0.0, 0.0)
    root = scipy.linalg.sqrtm(np.cov(moving.T, bias=True)).real
    inner = scipy.linalg.sqrtm(root @ np.cov(fixed.T, bias=True) @ root).real
    expected = np.linalg.inv(root) @ inner @ np.linalg.inv(root)
    np.testing.assert_allclose(fitted.alpha, expected, **CLOSE)
    np.testing.assert_allclose(fitted.offset, fixed.mean(0) - moving.mean(0) @ expected, **CLOSE)
    alpha, offset = ot.gaussian.empirical_bures_wasserstein_mapping(moving, fixed, reg=1e-12)
    np.testing.assert_allclose(fitted.alpha, alpha, **CLOSE)
    np.testing.assert_allclose(fitted.offset, offset[0], **CLOSE)


def test_barycentric_transport_finds_a_shift_that_pot_finds():
    rng = np.random.default_rng(1)
    moving = rng.normal(size=(80, 3))
    shift = np.array([4.0, -1.0, 0.5])
    fitted = unpaired.barycentric_transport(moving, moving[::-1] + shift, seed=0, strength=1e-6)
    np.testing.assert_allclose(fitted.apply(moving), moving + shift, **CLOSE)


def test_barycentric_transport_samples_no_more_than_it_may(domains):
    moving, fixed = domains
    again = [unpaired.barycentric_transport(moving, fixed, seed=3, max_samples=50).alpha for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert len(unpaired.sample(moving, 50, 3)) == 50
    assert unpaired.sample(moving, 300, 3) is moving


def test_shrinkage_chosen_by_the_data_is_that_of_scikit_learn(domains):
    moving, _ = domains
    covariance, share = sklearn_oas(moving[:20])
    found = moments(moving[:20])
    assert oas(found) == pytest.approx(share, rel=1e-6)
    np.testing.assert_allclose(shrink(found.covariance_DD, oas(found)), covariance, **CLOSE)


@pytest.mark.parametrize("method", [unpaired.z_score, unpaired.coral, unpaired.whitening, unpaired.gaussian_transport])
def test_a_feature_that_never_changes_stays_finite_and_lands_on_the_other_mean(method):
    rng = np.random.default_rng(3)
    moving, fixed = rng.normal(size=(50, 4)), rng.normal(size=(40, 4)) * 2 + 1
    moving[:, 2] = 5.0
    moved = method(moving, fixed).apply(moving)
    assert np.isfinite(moved).all()
    np.testing.assert_allclose(moved.mean(0), fixed.mean(0), **CLOSE)


@pytest.mark.parametrize("method", [unpaired.coral, unpaired.whitening, unpaired.gaussian_transport])
@pytest.mark.parametrize("shrinkage", [None, 0.0])
def test_fewer_items_than_features_is_finite(method, shrinkage):
    rng = np.random.default_rng(3)
    fitted = method(rng.normal(size=(5, 30)), rng.normal(size=(6, 30)), shrinkage, shrinkage)
    moved = fitted.apply(rng.normal(size=(5, 30)))
    assert np.isfinite(moved).all()
    assert np.abs(moved).max() < 1e7


@pytest.mark.parametrize("rows", [np.zeros((1, 3)), np.full((4, 3), np.nan), np.zeros(4)])
def test_what_has_no_moments_is_refused(rows):
    with pytest.raises(ValueError, match="expected"):
        unpaired.coral(rows, np.eye(3))


def test_transport_brings_no_torch_in():
    code = (
        "import sys, numpy as np; from worker.alignments import unpaired; "
        "x = np.random.default_rng(0).normal(size=(20, 3)); "
        "unpaired.gaussian_transport(x, x * 2); unpaired.barycentric_transport(x, x * 2, 0); "
        "assert 'ot' in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", [unpaired.z_score, unpaired.coral, unpaired.whitening, unpaired.gaussian_transport])
def test_memory_does_not_grow_with_the_items(method):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(160_000, 8)).astype(np.float32)
    method(rows[:100], rows[100:200])
    peaks = []
    for count in (20_000, 80_000):
        tracemalloc.start()
        method(rows[:count], rows[count : 2 * count])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < rows[:80_000].nbytes
