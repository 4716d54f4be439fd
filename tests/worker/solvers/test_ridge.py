import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifierCV

from worker.solvers import ridge
from worker.solvers.linear import standardise
from worker.solvers.spectrum import eigenbasis


def regression(num_items: int, num_dims: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    feats_ND = np.maximum(rng.normal(size=(num_items, num_dims)) + 1.0, 0.0)
    targets_NC = feats_ND[:, :3] @ rng.normal(size=(3, 2)) + rng.normal(size=(num_items, 2))
    return feats_ND, targets_NC


@pytest.mark.parametrize(("num_items", "num_dims"), [(40, 12), (20, 50), (150, 4)])
def test_leave_one_out_equals_refitting_without_each_item(num_items: int, num_dims: int) -> None:
    feats_ND, targets_NC = regression(num_items, num_dims)
    lambdas = (0.01, 1.0, 100.0)
    found = ridge.leave_one_out(feats_ND, targets_NC, lambdas)
    for index, strength in enumerate(lambdas):
        for item in range(num_items):
            rest = np.arange(num_items) != item
            slow = Ridge(alpha=strength, solver="svd").fit(feats_ND[rest], targets_NC[rest])
            np.testing.assert_allclose(
                found.predictions_LNC[index, item], slow.predict(feats_ND[[item]])[0], rtol=1e-6, atol=1e-6
            )
        error = np.square(found.predictions_LNC[index] - targets_NC).mean()
        np.testing.assert_allclose(found.squared_error_L[index], error, rtol=1e-9)


@pytest.mark.parametrize(("num_items", "num_dims"), [(60, 12), (20, 50), (150, 4)])
def test_fit_equals_scikit_learn(num_items: int, num_dims: int) -> None:
    feats_ND, targets_NC = regression(num_items, num_dims)
    found = ridge.fit(feats_ND, targets_NC, 2.5)
    known = Ridge(alpha=2.5, solver="svd").fit(feats_ND, targets_NC)
    np.testing.assert_allclose(found.weight_CD, known.coef_, atol=1e-9)
    np.testing.assert_allclose(found.bias_C, known.intercept_, atol=1e-9)


@pytest.mark.parametrize(("num_items", "num_dims"), [(300, 40), (60, 90), (900, 10)])
def test_a_shared_float32_basis_gives_the_same_answer(num_items: int, num_dims: int) -> None:
    feats_ND, targets_NC = regression(num_items, num_dims)
    mean_D, scale_D = standardise(feats_ND)
    feats_ND = (feats_ND - mean_D) / scale_D
    exact = ridge.leave_one_out(feats_ND, targets_NC)
    shared = ridge.leave_one_out(feats_ND, targets_NC, basis=eigenbasis(feats_ND.astype(np.float32)))
    np.testing.assert_allclose(shared.predictions_LNC, exact.predictions_LNC, atol=2e-3)
    assert shared.best_index == exact.best_index


def test_classifier_chooses_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(1)
    labels_N = rng.integers(0, 4, size=200)
    feats_ND = rng.normal(size=(200, 30)) + 0.5 * rng.normal(size=(4, 30))[labels_N]
    found = ridge.leave_one_out(feats_ND, 2 * ridge.one_hot(labels_N, 4) - 1, (0.1, 10.0, 1000.0))
    known = RidgeClassifierCV(alphas=(0.1, 10.0, 1000.0), store_cv_results=True).fit(feats_ND, labels_N)
    assert found.lambdas[found.best_index] == known.alpha_
    np.testing.assert_allclose(found.squared_error_L, known.cv_results_.mean(axis=(0, 1)), rtol=1e-6)
    accuracy = [(found.predictions_LNC[i].argmax(axis=1) == labels_N).mean() for i in range(3)]
    np.testing.assert_allclose(found.accuracy(labels_N), accuracy)


def test_bad_input_is_refused() -> None:
    feats_ND, targets_NC = regression(10, 3)
    with pytest.raises(ValueError, match="positive lambdas"):
        ridge.leave_one_out(feats_ND, targets_NC, (0.0, 1.0))
    with pytest.raises(ValueError, match="one row per item"):
        ridge.fit(feats_ND, targets_NC[:5], 1.0)
    with pytest.raises(ValueError, match="finite features"):
        ridge.fit(np.full((4, 2), np.nan), np.zeros((4, 1)), 1.0)


@pytest.mark.parametrize(("num_items", "num_features"), [(40, 12), (30, 60), (100, 12)])
def test_leaving_folds_out_equals_refits(num_items: int, num_features: int) -> None:
    rng = np.random.default_rng(3)
    feats_ND = rng.normal(size=(num_items, num_features)) + 2.0
    targets_NC = ridge.one_hot(rng.integers(0, 3, num_items), 3)
    folds_N = rng.permutation(np.arange(num_items) % 5)
    found = ridge.leave_folds_out(feats_ND, targets_NC, folds_N, 0.7)
    for fold in range(5):
        held = folds_N == fold
        refit = ridge.fit(feats_ND[~held], targets_NC[~held], 0.7)
        np.testing.assert_allclose(found[held], refit.outputs(feats_ND[held]), atol=1e-8)
