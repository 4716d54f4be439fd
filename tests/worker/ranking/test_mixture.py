"""Expectation maximisation against a loop and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from worker.ranking import mixture, transferability


@pytest.fixture
def items_NR():
    rng = np.random.default_rng(0)
    return rng.normal(size=(150, 3)) * [1.0, 0.5, 2.0] + 5 * np.eye(3)[np.arange(150) % 3]


def test_one_round_is_a_loop(items_NR):
    rng = np.random.default_rng(1)
    share_NK = rng.dirichlet(np.ones(2), len(items_NR))
    found = mixture.maximise(items_NR, share_NK)
    for k in range(2):
        total = sum(share_NK[:, k])
        mean = sum(share * item for share, item in zip(share_NK[:, k], items_NR, strict=True)) / total
        variance = sum(s * (item - mean) ** 2 for s, item in zip(share_NK[:, k], items_NR, strict=True)) / total
        np.testing.assert_allclose(found.mean_KR[k], mean, rtol=1e-9)
        np.testing.assert_allclose(found.variance_KR[k], variance, rtol=1e-7)
        assert found.log_share_K[k] == pytest.approx(math.log(total / len(items_NR)), rel=1e-9)
    item, k = items_NR[0], 1
    density = found.log_share_K[k] + sum(
        -0.5 * math.log(2 * math.pi * v) - (x - m) ** 2 / (2 * v)
        for x, m, v in zip(item, found.mean_KR[k], found.variance_KR[k], strict=True)
    )
    assert found.joint_NK(items_NR)[0, k] == pytest.approx(density, rel=1e-9)


def test_it_ends_where_scikit_learn_ends(items_NR, monkeypatch):
    monkeypatch.setattr(mixture, "TOLERANCE", 1e-10)
    monkeypatch.setattr(mixture, "MAX_ROUNDS", 2000)
    found = mixture.fit(items_NR, 3, 0)
    own = GaussianMixture(
        3, covariance_type="diag", tol=1e-10, max_iter=500, means_init=found.mean_KR,
        weights_init=np.exp(found.log_share_K), precisions_init=1 / found.variance_KR,
    ).fit(items_NR)  # fmt: skip
    np.testing.assert_allclose(found.mean_KR, own.means_, atol=1e-3)
    np.testing.assert_allclose(found.posterior_NK(items_NR), own.predict_proba(items_NR), atol=1e-3)
    likelihood = float(np.log(np.exp(found.joint_NK(items_NR)).sum(1)).mean())
    assert likelihood == pytest.approx(own.score(items_NR), abs=1e-6)


def test_it_is_the_seeds_alone(items_NR):
    first, again = (mixture.fit(items_NR, 5, 3).posterior_NK(items_NR) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, mixture.fit(items_NR, 5, 4).posterior_NK(items_NR))


def test_copies_and_as_many_components_as_items_stay_finite():
    copies_NR = np.repeat(np.eye(2), 10, axis=0)
    for components in (2, 8, 20):
        posterior_NK = mixture.fit(copies_NR, components, 0).posterior_NK(copies_NR)
        assert np.isfinite(posterior_NK).all()
        np.testing.assert_allclose(posterior_NK.sum(1), 1.0)
    constant_NR = np.ones((5, 2))
    assert np.isfinite(mixture.fit(constant_NR, 3, 0).posterior_NK(constant_NR)).all()
    with pytest.raises(ValueError, match="1 to 5 components"):
        mixture.fit(constant_NR, 6, 0)


@pytest.mark.parametrize("shape", [(60, 8), (20, 50), (200, 8)])
def test_principal_axes_are_scikit_learns(shape):
    feats_ND = np.random.default_rng(2).normal(size=shape) * np.linspace(0.3, 2, shape[1])
    found = mixture.principal(transferability.centred_basis(feats_ND), 0.8)
    expected = PCA(0.8).fit_transform(feats_ND)
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
