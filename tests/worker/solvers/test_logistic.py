import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from worker.solvers import logistic
from worker.solvers.spectrum import eigenbasis


def relu_features(
    num_items: int, num_dims: int, num_classes: int, seed: int = 0, signal: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised features as a backbone gives them (ReLU, few intrinsic directions), labels, folds."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(num_items) % num_classes
    latent = rng.normal(size=(num_items, 40)) + signal * rng.normal(size=(num_classes, 40))[labels_N]
    feats_ND = latent @ rng.normal(size=(40, num_dims)) / 4 + rng.normal(size=(num_items, num_dims)) * 0.3
    feats_ND = np.maximum(feats_ND, 0)
    mean_D, scale_D = logistic.standardise(feats_ND)
    return ((feats_ND - mean_D) / scale_D).astype(np.float32), labels_N, rng.integers(0, 5, num_items)


def reference(feats_ND: np.ndarray, labels_N: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, tol=1e-8, max_iter=20_000).fit(feats_ND.astype(np.float64), labels_N)


def objective(weight_CD: np.ndarray, bias_C: np.ndarray, feats_ND: np.ndarray, labels_N: np.ndarray, c: float) -> float:
    logits_NC = feats_ND.astype(np.float64) @ weight_CD.T.astype(np.float64) + bias_C
    own_N = np.log(softmax(logits_NC, axis=1)[np.arange(labels_N.size), labels_N])
    penalty = 2.0 if weight_CD.shape[0] == 2 else 1.0
    return float(-c * own_N.sum() + penalty / 2 * np.square(weight_CD.astype(np.float64)).sum())


def known_objective(known: LogisticRegression, feats_ND: np.ndarray, labels_N: np.ndarray, c: float) -> float:
    weight_CD, bias_C = known.coef_, known.intercept_
    if len(weight_CD) == 1:
        weight_CD, bias_C = np.vstack([-weight_CD, weight_CD]) / 2, np.array([-bias_C[0], bias_C[0]]) / 2
    return objective(weight_CD, bias_C, feats_ND, labels_N, c)


SHAPES = [(300, 40, 10), (90, 150, 10), (200, 30, 2), (80, 150, 2), (700, 30, 3)]


@pytest.mark.parametrize(("num_items", "num_dims", "num_classes"), SHAPES)
def test_out_of_fold_probabilities_equal_scikit_learn_fold_by_fold(
    num_items: int, num_dims: int, num_classes: int
) -> None:
    feats_ND, labels_N, folds_N = relu_features(num_items, num_dims, num_classes)
    strengths = (1e-4, 1e-2, 1.0, 10.0)
    found = logistic.cross_validate(feats_ND, labels_N, folds_N, num_classes, strengths, tolerance=1e-10)
    for index, strength in enumerate(strengths):
        for fold in range(5):
            held_N = folds_N == fold
            known = reference(feats_ND[~held_N], labels_N[~held_N], strength)
            probabilities = known.predict_proba(feats_ND[held_N].astype(np.float64))
            ours = softmax(found.logits_SNC[index, held_N].astype(np.float64), axis=1)
            np.testing.assert_allclose(ours, probabilities, atol=1.5e-4)
            accuracy = (ours.argmax(axis=1) == labels_N[held_N]).mean()
            assert found.accuracy_SF[index, fold] == pytest.approx(accuracy)
            nll = -np.log(ours[np.arange(held_N.sum()), labels_N[held_N]]).mean()
            assert found.nll_SF[index, fold] == pytest.approx(nll, rel=1e-4)


@pytest.mark.parametrize(("num_items", "num_dims", "num_classes"), SHAPES)
@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
def test_fit_reaches_the_objective_of_scikit_learn(
    num_items: int, num_dims: int, num_classes: int, strength: float
) -> None:
    feats_ND, labels_N, _ = relu_features(num_items, num_dims, num_classes)
    found = logistic.fit(feats_ND, labels_N, num_classes, strength)
    known = known_objective(reference(feats_ND, labels_N, strength), feats_ND, labels_N, strength)
    assert objective(found.weight_CD, found.bias_C, feats_ND, labels_N, strength) <= known * (1 + 1e-5)
    np.testing.assert_allclose(found.weight_CD.sum(axis=0), 0, atol=1e-4)


def test_cross_validation_at_its_default_tolerance_is_close_and_picks_the_same_strength() -> None:
    feats_ND, labels_N, folds_N = relu_features(300, 40, 10)
    default = logistic.cross_validate(feats_ND, labels_N, folds_N, 10)
    tight = logistic.cross_validate(feats_ND, labels_N, folds_N, 10, tolerance=1e-10)
    probabilities = softmax(default.logits_SNC, axis=2) - softmax(tight.logits_SNC, axis=2)
    assert np.sqrt(np.square(probabilities).mean()) < 2e-3
    np.testing.assert_allclose(default.nll_SF, tight.nll_SF, rtol=1e-2)
    assert default.best_index == tight.best_index


def test_path_ends_where_it_is_clearly_past_the_best_and_the_same_is_chosen() -> None:
    feats_ND, labels_N, folds_N = relu_features(300, 150, 4, signal=0.2)
    whole = logistic.cross_validate(feats_ND, labels_N, folds_N, 4)
    short = logistic.cross_validate(feats_ND, labels_N, folds_N, 4, clearly=3.0)
    num = len(short.strengths)
    assert whole.best_index < num - 1 < len(whole.strengths) - 1, "the set has its best in the middle"
    assert short.strengths == whole.strengths[:num]
    assert short.best_index == whole.best_index
    assert len(short.whole_fits) == num
    np.testing.assert_array_equal(short.logits_SNC, whole.logits_SNC[:num])


def test_path_goes_on_where_the_difference_may_be_chance() -> None:
    feats_ND, labels_N, folds_N = relu_features(300, 150, 4, signal=0.2)
    whole = logistic.cross_validate(feats_ND, labels_N, folds_N, 4)
    unsure = logistic.cross_validate(feats_ND, labels_N, folds_N, 4, clearly=1e6)
    assert unsure.strengths == whole.strengths


def test_fit_many_equals_separate_fits_and_a_start_changes_nothing() -> None:
    feats_ND, labels_N, folds_N = relu_features(300, 40, 4)
    rows_FN = np.stack([folds_N != 0, np.ones(300, dtype=bool)])
    cv = logistic.cross_validate(feats_ND, labels_N, folds_N, 4, (0.1, 1.0))
    together = logistic.fit_many(feats_ND, labels_N, rows_FN, 4, 1.0, start=cv.whole_fits[1], tolerance=1e-11)
    for rows_N, found in zip(rows_FN, together, strict=True):
        alone = logistic.fit(feats_ND[rows_N], labels_N[rows_N], 4, 1.0, tolerance=1e-11)
        np.testing.assert_allclose(
            softmax(found.outputs(feats_ND), axis=1), softmax(alone.outputs(feats_ND), axis=1), atol=3e-4
        )


def test_folds_solved_one_after_the_other_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    feats_ND, labels_N, folds_N = relu_features(200, 30, 3)
    together = logistic.cross_validate(feats_ND, labels_N, folds_N, 3, tolerance=1e-10)
    monkeypatch.setattr(logistic, "_MAX_ELEMENTS", 2 * 3 * 200)
    apart = logistic.cross_validate(feats_ND, labels_N, folds_N, 3, tolerance=1e-10)
    np.testing.assert_allclose(softmax(apart.logits_SNC, axis=2), softmax(together.logits_SNC, axis=2), atol=5e-4)
    np.testing.assert_allclose(apart.whole_fits[2].weight_CD, together.whole_fits[2].weight_CD, atol=1e-3)


def test_class_absent_from_a_fold_leaves_the_others_as_if_it_were_unknown() -> None:
    feats_ND, labels_N, folds_N = relu_features(200, 30, 4)
    folds_N[labels_N == 3] = 2
    found = logistic.cross_validate(feats_ND, labels_N, folds_N, 4, (1.0, 10.0), tolerance=1e-10)
    assert np.isfinite(found.logits_SNC).all()
    assert np.isfinite(found.nll_SF).all()
    held_N = folds_N == 2
    for index, strength in enumerate(found.strengths):
        known = reference(feats_ND[~held_N], labels_N[~held_N], strength)
        ours = softmax(found.logits_SNC[index, held_N].astype(np.float64), axis=1)
        assert ours[:, 3].max() < 1e-3
        np.testing.assert_allclose(
            ours[:, :3] / ours[:, :3].sum(axis=1, keepdims=True),
            known.predict_proba(feats_ND[held_N].astype(np.float64)),
            atol=1.5e-4,
        )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.filterwarnings("error")
def test_a_fold_with_one_class_alone_says_numbers_whatever_the_classes_are_called(order: tuple[int, int]) -> None:
    """It has nothing to learn; its steps are all but empty, and were divided by."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        centres_N = np.array([0.0] * 28 + [3.0])
        feats_ND = np.float32(centres_N[:, None] + rng.normal(size=(29, 64)))
        labels_N = np.where(centres_N == 0, order[0], order[1])
        folds_N = np.arange(29) % 5
        rows_FN = folds_N != np.arange(5)[:, None]
        whole = logistic.fit(feats_ND, labels_N, 2, 100.0)
        for fold, found in enumerate(logistic.fit_many(feats_ND, labels_N, rows_FN, 2, 100.0, whole)):
            said = found.outputs(feats_ND[folds_N == fold])
            assert np.isfinite(said).all()
            assert (said.argmax(1) == order[0]).all()


def test_fit_without_any_item_of_a_class_never_predicts_it() -> None:
    feats_ND, labels_N, _ = relu_features(120, 30, 3)
    found = logistic.fit(feats_ND, labels_N, 4, 1.0)
    probabilities = softmax(found.outputs(feats_ND), axis=1)
    assert probabilities[:, 3].max() <= 1.01 * logistic.ABSENT_PROBABILITY
    assert np.isfinite(found.bias_C).all()


def test_many_items_per_feature_use_the_unprojected_basis_with_the_same_result() -> None:
    feats_ND, labels_N, _ = relu_features(900, 20, 3)
    basis = eigenbasis(feats_ND)
    assert not basis.projected
    assert np.shares_memory(basis.matrix, feats_ND)
    found = logistic.fit(feats_ND, labels_N, 3, 1.0, basis=basis)
    known = known_objective(reference(feats_ND, labels_N, 1.0), feats_ND, labels_N, 1.0)
    assert objective(found.weight_CD, found.bias_C, feats_ND, labels_N, 1.0) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize("num_items", [60, 400])
def test_constant_and_repeated_features_are_harmless(num_items: int) -> None:
    feats_ND, labels_N, folds_N = relu_features(num_items, 30, 3)
    feats_ND = np.concatenate([feats_ND, feats_ND[:, :20], np.zeros((num_items, 50), dtype=np.float32)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = logistic.cross_validate(feats_ND, labels_N, folds_N, 3, (0.01, 1.0), tolerance=1e-10)
    held_N = folds_N == 1
    known = reference(feats_ND[~held_N], labels_N[~held_N], 1.0)
    ours = softmax(found.logits_SNC[1, held_N].astype(np.float64), axis=1)
    np.testing.assert_allclose(ours, known.predict_proba(feats_ND[held_N].astype(np.float64)), atol=2e-4)


def test_standardise_gives_unit_scale_and_leaves_constants_alone() -> None:
    rng = np.random.default_rng(0)
    feats_ND = np.concatenate([3 + 2 * rng.normal(size=(50, 4)), np.full((50, 1), 0.1)], axis=1).astype(np.float32)
    mean_D, scale_D = logistic.standardise(feats_ND)
    np.testing.assert_allclose(mean_D, feats_ND.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale_D[:4], feats_ND[:, :4].astype(np.float64).std(axis=0), rtol=1e-5)
    assert scale_D[4] == 1.0


def test_bad_input_is_refused() -> None:
    feats_ND, labels_N, folds_N = relu_features(40, 10, 2)
    with pytest.raises(ValueError, match="increasing positive strengths"):
        logistic.cross_validate(feats_ND, labels_N, folds_N, 2, (1.0, 0.1))
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        logistic.fit(feats_ND, labels_N + 1, 2, 1.0)
    with pytest.raises(ValueError, match="at least two folds"):
        logistic.cross_validate(feats_ND, labels_N, np.zeros(40, dtype=int), 2)
    with pytest.raises(ValueError, match="at least two classes"):
        logistic.fit(feats_ND, labels_N * 0, 1, 1.0)
    with pytest.raises(ValueError, match="positive strength"):
        logistic.fit(feats_ND, labels_N, 2, 0.0)


def test_solvers_and_scores_do_not_import_torch() -> None:
    names = "solvers.folds solvers.logistic solvers.ridge scores.metrics scores.intervals scores.calibration"
    names += " scores.verdict overlap.leakage evaluate.selection"
    code = f"import sys\nfor name in {names.split()!r}: __import__('worker.' + name)\n"
    code += "assert not {'torch', 'sklearn', 'fastapi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
