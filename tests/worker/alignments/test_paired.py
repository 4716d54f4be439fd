"""Paired alignments against scikit-learn, SciPy, and a descent written as loops over rows."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_squared_error, r2_score

from worker.alignments import paired
from worker.alignments.affine import Affine

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def pairs():
    """Features x and y [200, 8], linearly related, far from zero, noisy."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(200, 8)) * rng.uniform(0.1, 5, 8) + rng.normal(size=8) * 10
    return x, x @ rng.normal(size=(8, 8)) * 0.2 + x * 1.5 + rng.normal(size=(200, 8)) - 3


def test_affine_is_one_regression_per_feature(pairs):
    x, y = pairs
    fitted = paired.affine(x, y)
    for feature in range(8):
        line = LinearRegression().fit(x[:, [feature]], y[:, feature])
        assert fitted.alpha[feature] == pytest.approx(line.coef_[0], rel=1e-5)
        assert fitted.offset[feature] == pytest.approx(line.intercept_, rel=1e-5)


def test_descent_ends_where_the_closed_form_is(pairs):
    x, y = pairs
    closed, descent = paired.affine(x, y), paired.affine_descent(x, y)
    np.testing.assert_allclose(descent.affine.alpha, closed.alpha, **CLOSE)
    np.testing.assert_allclose(descent.affine.offset, closed.offset, **CLOSE)
    assert descent.losses[-1] < descent.losses[0]
    assert descent.losses[-1] == pytest.approx(paired.errors(closed, x, y)[0], rel=1e-5)


def test_descent_takes_the_steps_that_loops_over_rows_take(pairs):
    x, y = pairs[0][:30, :3], pairs[1][:30, :3]
    num_items, num_features = x.shape
    learning_rate, steps = 0.3, 7
    mean, scale = x.mean(0), x.std(0)
    alpha, beta, losses = list(scale), list(mean), []
    root = np.sqrt(num_features)
    for step in range(steps + 1):
        loss, grad_alpha, grad_beta = 0.0, [0.0] * num_features, [0.0] * num_features
        for i in range(num_items):
            for f in range(num_features):
                z = (x[i, f] - mean[f]) / scale[f]
                residual = (alpha[f] * z + beta[f]) / root - y[i, f] / root
                loss += residual**2 / num_items
                grad_alpha[f] += 2 / num_items * residual * z / root
                grad_beta[f] += 2 / num_items * residual / root
        losses.append(loss)
        if step < steps:
            for f in range(num_features):
                alpha[f] -= learning_rate * num_features / 2 * grad_alpha[f]
                beta[f] -= learning_rate * num_features / 2 * grad_beta[f]
    found = paired.affine_descent(x, y, learning_rate, steps)
    np.testing.assert_allclose(found.losses, losses, **CLOSE)
    np.testing.assert_allclose(found.affine.alpha, np.array(alpha) / scale, **CLOSE)
    np.testing.assert_allclose(found.affine.offset, np.array(beta) - np.array(alpha) * mean / scale, **CLOSE)


def test_a_feature_that_never_changes_is_shifted(pairs):
    x, y = pairs[0].copy(), pairs[1]
    x[:, 1] = 4.0
    for fitted in (paired.affine(x, y), paired.affine_descent(x, y).affine):
        assert fitted.alpha[1] == pytest.approx(1.0)
        assert fitted.apply(x)[:, 1].mean() == pytest.approx(y[:, 1].mean())


@pytest.mark.parametrize("width", [8, 3])
def test_ridge_is_scikit_learns(pairs, width):
    x, y = pairs[0], pairs[1][:, :width]
    level = np.trace(np.cov(x.T, bias=True)) / 8
    reference = Ridge(alpha=0.05 * level * len(x)).fit(x, y)
    fitted = paired.ridge(x, y, 0.05)
    np.testing.assert_allclose(fitted.alpha, reference.coef_.T, **CLOSE)
    np.testing.assert_allclose(fitted.apply(x), reference.predict(x), **CLOSE)
    with pytest.raises(ValueError, match="positive"):
        paired.ridge(x, y, 0.0)


def test_strength_is_the_one_with_the_lowest_error_on_held_out_pairs(pairs):
    x, y = pairs
    strength, errors = paired.choose_strength(x[:120], y[:120], x[120:], y[120:])
    slow = [paired.errors(paired.ridge(x[:120], y[:120], one), x[120:], y[120:])[0] for one in paired.STRENGTHS]
    np.testing.assert_allclose(errors, slow, **CLOSE)
    assert strength == paired.STRENGTHS[int(np.argmin(slow))]


def test_procrustes_is_scipys(pairs):
    x, y = pairs
    turn, total = scipy.linalg.orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    scale = total / np.square(x - x.mean(0)).sum()
    expected = (x - x.mean(0)) @ turn * scale + y.mean(0)
    np.testing.assert_allclose(paired.procrustes(x, y).apply(x), expected, **CLOSE)


@pytest.mark.parametrize(("wide_in", "wide_out"), [(3, 8), (8, 3)])
def test_procrustes_between_widths_is_the_padded_one(pairs, wide_in, wide_out):
    x, y = pairs[0][:, :wide_in], pairs[1][:, :wide_out]
    fitted = paired.procrustes(x, y)
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    padded_x, padded_y = (np.pad(side, ((0, 0), (0, 8 - side.shape[1]))) for side in (centred_x, centred_y))
    turn = scipy.linalg.orthogonal_procrustes(padded_x, padded_y)[0][:wide_in, :wide_out]
    moved = centred_x @ turn
    scale = (moved * centred_y).sum() / np.square(moved).sum()
    np.testing.assert_allclose(fitted.apply(x), scale * moved + y.mean(0), **CLOSE)


def test_a_known_rotation_between_widths_is_found():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 3))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
    fitted = paired.procrustes(x, 2.5 * x @ turn + 1.0)
    np.testing.assert_allclose(fitted.alpha, 2.5 * turn, **CLOSE)


def test_procrustes_leaves_directions_alone_that_no_pair_speaks_of():
    rng = np.random.default_rng(5)
    turn = np.eye(9)
    turn[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    x = np.zeros((7, 9))
    x[:, :3] = rng.normal(size=(7, 3))
    fitted = paired.procrustes(x, x @ turn)
    np.testing.assert_allclose(fitted.alpha, turn, **CLOSE)
    np.testing.assert_allclose(fitted.alpha @ fitted.alpha.T, np.eye(9), **CLOSE)


def test_errors_are_scikit_learns(pairs):
    x, y = pairs
    fitted = paired.affine(x, y)
    mse, r2 = paired.errors(fitted, x, y)
    assert mse == pytest.approx(mean_squared_error(y, fitted.apply(x)), rel=1e-5)
    assert r2 == pytest.approx(r2_score(y, fitted.apply(x), multioutput="variance_weighted"), rel=1e-5)


def test_pairs_of_different_width_or_number_are_refused(pairs):
    x, y = pairs
    with pytest.raises(ValueError, match="one width"):
        paired.affine(x, y[:, :3])
    with pytest.raises(ValueError, match="pairs of rows"):
        paired.ridge(x, y[:50], 1.0)
    with pytest.raises(ValueError, match="rate"):
        paired.affine_descent(x, y, 2.0)


def test_one_transform_after_another_is_one_transform():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(10, 3))
    diagonal = Affine(rng.normal(size=3), rng.normal(size=3))
    wide = Affine(rng.normal(size=(3, 5)), rng.normal(size=5))
    after = Affine(rng.normal(size=5), rng.normal(size=5))
    for first, then in ((diagonal, diagonal), (diagonal, wide), (wide, after)):
        np.testing.assert_allclose(first.then(then).apply(x), then.apply(first.apply(x)), **CLOSE)
    with pytest.raises(ValueError, match="takes 5"):
        wide.then(diagonal)
    with pytest.raises(ValueError, match="offset"):
        Affine(np.ones(3), np.ones(2))
