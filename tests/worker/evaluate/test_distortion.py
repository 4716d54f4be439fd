import numpy as np
import pytest

from worker.evaluate.distortion import linear_cka, relative_change


def test_change_equals_a_loop() -> None:
    before, after = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    wanted = [np.sqrt(((b - a) ** 2).sum()) / np.sqrt((a**2).sum()) for a, b in zip(before, after, strict=True)]
    assert relative_change(before, after) == pytest.approx(float(np.mean(wanted)), rel=1e-6)
    assert relative_change(before, before) == 0.0


def slow_hsic(k, m):
    """Equation 3 of Song et al.: means over tuples of different items, one by one."""
    n = len(k)
    pairs, triples, fours = [], [], []
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        pairs.append(k[i, j] * m[i, j])
                        triples.append(k[i, j] * m[i, q])
                        fours.append(k[i, j] * m[q, r])
    return np.mean(pairs) + np.mean(fours) - 2 * np.mean(triples)


def test_cka_equals_means_over_all_tuples() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=(7, 3)) + 2
    second = first @ rng.normal(size=(3, 4)) + rng.normal(size=(7, 4))
    k, m = first @ first.T, second @ second.T
    expected = slow_hsic(k, m) / np.sqrt(slow_hsic(k, k) * slow_hsic(m, m))
    assert linear_cka(first, second) == pytest.approx(expected, abs=1e-9)


def test_rotation_shift_and_scale_change_nothing() -> None:
    rng = np.random.default_rng(2)
    feats = rng.normal(size=(60, 20))
    rotation, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    assert linear_cka(feats, 3 * feats @ rotation + 5) == pytest.approx(1, abs=1e-9)


def test_unrelated_features_are_around_zero_although_they_are_wider_than_many() -> None:
    rng = np.random.default_rng(3)
    found = [linear_cka(rng.normal(size=(40, 500)), rng.normal(size=(40, 500))) for _ in range(8)]
    assert abs(np.mean(found)) < 0.05  # the plain estimate is about 0.93 here


def test_features_that_never_differ_have_nothing_in_common() -> None:
    assert linear_cka(np.ones((5, 2)), np.random.default_rng(0).normal(size=(5, 2))) == 0.0
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(np.ones((3, 2)), np.ones((3, 2)))
