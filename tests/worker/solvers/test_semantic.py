"""Closed forms against scikit-learn, explicit formulas and slow loops."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from app.artifact.scores import unit
from worker.solvers import semantic


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_head_map_is_ridge_with_an_intercept(numbers) -> None:
    vectors, rows, new = numbers.normal(size=(40, 6)), numbers.normal(size=(40, 9)), numbers.normal(size=(5, 6))
    fitted = semantic.fit_head_map(vectors, rows, (3.0,))
    reference = Ridge(alpha=3.0).fit(vectors, rows)
    wanted = unit(reference.predict(new) - rows.mean(0))
    np.testing.assert_allclose(fitted.rows(new), wanted, atol=1e-5)


def test_its_strength_has_the_best_cosine_when_each_class_is_left_out(numbers) -> None:
    vectors = numbers.normal(size=(30, 5))
    rows = vectors @ numbers.normal(size=(5, 7)) + numbers.normal(size=(30, 7))
    cosines = {}
    for strength in (0.1, 10.0, 1000.0):
        total = 0.0
        for left in range(30):
            rest = np.arange(30) != left
            one = Ridge(alpha=strength).fit(vectors[rest], rows[rest]).predict(vectors[left : left + 1])[0]
            one, truth = one - rows.mean(0), rows[left] - rows.mean(0)
            total += one @ truth / np.linalg.norm(one) / np.linalg.norm(truth)
        cosines[strength] = total / 30
    fitted = semantic.fit_head_map(vectors, rows, tuple(cosines))
    assert fitted.strength == max(cosines, key=cosines.__getitem__)
    assert fitted.cosine == pytest.approx(cosines[fitted.strength], abs=1e-5)


def test_conse_mixes_the_likeliest_classes(numbers) -> None:
    probabilities, vectors = numbers.dirichlet(np.ones(12), size=7), numbers.normal(size=(12, 4))
    for row, found in zip(probabilities, semantic.conse(probabilities, vectors, 3), strict=True):
        mixed, total = np.zeros(4), 0.0
        for number in sorted(range(12), key=lambda k: -row[k])[:3]:
            mixed += row[number] * vectors[number]
            total += row[number]
        np.testing.assert_allclose(found, (mixed / total) / np.linalg.norm(mixed / total), atol=1e-12)


@pytest.mark.parametrize("num_images", [20, 90])
def test_eszsl_is_its_closed_form(numbers, num_images) -> None:
    features, vectors = numbers.normal(size=(num_images, 30)), numbers.normal(size=(6, 8))
    labels = np.arange(num_images) % 6
    signs = np.where(labels[:, None] == np.arange(6), 1.0, -1.0)
    left = np.linalg.inv(features.T @ features + 0.1 * np.eye(30))
    right = np.linalg.inv(vectors.T @ vectors + 10.0 * np.eye(8))
    wanted = left @ features.T @ signs @ vectors @ right
    images = semantic.decompose(features, labels, 6)
    np.testing.assert_allclose(images.basis_DR @ semantic.eszsl(images, vectors, 0.1, 10.0), wanted, atol=1e-5)


@pytest.mark.parametrize("num_images", [20, 90])
def test_devise_is_ridge_from_features_to_vectors(numbers, num_images) -> None:
    features, vectors = numbers.normal(size=(num_images, 30)), numbers.normal(size=(6, 8))
    labels = np.arange(num_images) % 6
    reference = Ridge(alpha=0.7, fit_intercept=False).fit(features, vectors[labels])
    images = semantic.decompose(features, labels, 6)
    np.testing.assert_allclose(images.basis_DR @ semantic.devise(images, vectors, 0.7), reference.coef_.T, atol=1e-5)


def test_spread_is_around_the_mean_of_each_row() -> None:
    assert semantic.spread(np.array([[1.0, 3.0], [11.0, 13.0]])) == 1.0
