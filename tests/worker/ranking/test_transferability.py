"""Scores of transferability against the papers' formulas, written as loops."""

import math

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from worker.ranking import mixture, transferability

SIZES = [(40, 6, 3), (12, 30, 3)]  # more images than features, and fewer


@pytest.fixture(params=SIZES, ids=["tall", "wide"])
def data(request):
    num_items, num_dims, num_classes = request.param
    rng = np.random.default_rng(7)
    labels_N = np.arange(num_items) % num_classes
    means_CD = rng.normal(size=(num_classes, num_dims))
    return (means_CD[labels_N] + rng.normal(size=(num_items, num_dims)) + 0.5).astype(np.float32), labels_N


def slow_logme(feats_ND, labels_N):
    """Algorithm 1 of arXiv 2102.11005: one class at a time, matrices inverted, evidence by its own formula."""
    feats_ND = feats_ND.astype(np.float64)
    num_items, num_dims = feats_ND.shape
    found = []
    for label in sorted(set(labels_N.tolist())):
        y_N = np.array([1.0 if one == label else 0.0 for one in labels_N])
        alpha = beta = 1.0
        for _ in range(transferability.MAX_ITERATIONS):
            a_DD = alpha * np.eye(num_dims) + beta * feats_ND.T @ feats_ND
            m_D = beta * np.linalg.inv(a_DD) @ feats_ND.T @ y_N
            values_D = np.linalg.eigvalsh(feats_ND.T @ feats_ND)
            gamma = sum(beta * value / (alpha + beta * value) for value in values_D if value > 1e-9 * values_D[-1])
            residual = sum((y_N - feats_ND @ m_D) ** 2)
            before = alpha, beta
            alpha, beta = np.clip([gamma / (m_D @ m_D), (num_items - gamma) / residual], 1e-9, 1e9)
            if max(abs(alpha / before[0] - 1), abs(beta / before[1] - 1)) < transferability.TOLERANCE:
                break
        a_DD = alpha * np.eye(num_dims) + beta * feats_ND.T @ feats_ND
        m_D = beta * np.linalg.inv(a_DD) @ feats_ND.T @ y_N
        evidence = (
            num_items / 2 * math.log(beta) + num_dims / 2 * math.log(alpha) - num_items / 2 * math.log(2 * math.pi)
            - beta / 2 * sum((y_N - feats_ND @ m_D) ** 2) - alpha / 2 * (m_D @ m_D)
            - np.linalg.slogdet(a_DD)[1] / 2
        )  # fmt: skip
        found.append(evidence / num_items)
    return sum(found) / len(found)


def slow_h_score(feats_ND, labels_N, share):
    feats_ND = feats_ND.astype(np.float64)
    mean_ND = np.array([feats_ND[labels_N == label].mean(0) for label in labels_N])
    covariance_DD = np.cov(feats_ND.T, bias=True)
    num_dims = len(covariance_DD)
    shrunk_DD = (1 - share) * covariance_DD + share * np.trace(covariance_DD) / num_dims * np.eye(num_dims)
    return np.trace(np.linalg.pinv(shrunk_DD) @ ((1 - share) * np.cov(mean_ND.T, bias=True)))


def slow_leep(source_NZ, labels_N):
    """Equations of arXiv 2002.12462, image by image."""
    num_items, num_source = source_NZ.shape
    joint = {}
    for row, label in zip(source_NZ, labels_N, strict=True):
        for z in range(num_source):
            joint[label, z] = joint.get((label, z), 0.0) + row[z] / num_items
    total = {z: sum(joint[label, z] for label in set(labels_N.tolist())) for z in range(num_source)}
    said = [
        sum(joint[label, z] / total[z] * row[z] for z in range(num_source))
        for row, label in zip(source_NZ, labels_N, strict=True)
    ]
    return sum(math.log(one) for one in said) / num_items


def slow_nce(source_N, labels_N):
    pairs = list(zip(source_N.tolist(), labels_N.tolist(), strict=True))
    entropy = 0.0
    for pair in set(pairs):
        share = pairs.count(pair) / len(pairs)
        entropy -= share * math.log(pairs.count(pair) / source_N.tolist().count(pair[0]))
    return -entropy


def test_logme_is_the_papers(data):
    assert transferability.logme(*data) == pytest.approx(slow_logme(*data), rel=1e-4)


def test_logme_does_not_mind_rotation_scale_and_names(data):
    feats_ND, labels_N = data
    expected = transferability.logme(feats_ND, labels_N)
    rotation_DD = np.linalg.qr(np.random.default_rng(1).normal(size=(feats_ND.shape[1],) * 2))[0]
    order_N = np.random.default_rng(2).permutation(len(labels_N))
    assert transferability.logme(feats_ND @ rotation_DD, labels_N) == pytest.approx(expected, rel=1e-4)
    assert transferability.logme(7.0 * feats_ND, labels_N) == pytest.approx(expected, rel=1e-3)
    assert transferability.logme(feats_ND[order_N], 10 - labels_N[order_N]) == pytest.approx(expected, rel=1e-6)


def test_logme_stays_finite_where_a_class_is_explained_entirely():
    labels_N = np.arange(30) % 3
    assert math.isfinite(transferability.logme(np.eye(3)[labels_N], labels_N))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_h_score_is_the_papers(data, share):
    assert transferability.h_score(*data, share) == pytest.approx(slow_h_score(*data, share), rel=1e-5)


def test_h_score_without_shrinkage_minds_no_linear_map_but_says_nothing_of_wide_features():
    rng = np.random.default_rng(3)
    labels_N = np.arange(60) % 4
    feats_ND = rng.normal(size=(60, 5)) + np.eye(4, 5)[labels_N]
    mixed_ND = feats_ND @ rng.normal(size=(5, 5)) + 3.0
    assert transferability.h_score(mixed_ND, labels_N, 0.0) == pytest.approx(
        transferability.h_score(feats_ND, labels_N, 0.0), rel=1e-6
    )
    noise_ND = rng.normal(size=(60, 200))
    assert transferability.h_score(noise_ND, labels_N, 0.0) == pytest.approx(3.0, rel=1e-6)
    assert transferability.h_score(noise_ND, labels_N) < 1.0


def test_shrinkage_is_ledoit_and_wolfs(data):
    centred_ND = data[0] - data[0].mean(0)
    expected = LedoitWolf(assume_centered=True).fit(centred_ND.astype(np.float64)).shrinkage_
    assert transferability.ledoit_wolf(centred_ND) == pytest.approx(expected, rel=1e-5)


def test_leep_and_nce_are_the_papers():
    rng = np.random.default_rng(5)
    labels_N = rng.integers(0, 3, 50)
    source_NZ = rng.dirichlet(np.full(6, 0.3), 50)
    assert transferability.leep(source_NZ, labels_N) == pytest.approx(slow_leep(source_NZ, labels_N), rel=1e-9)
    source_N = source_NZ.argmax(1)
    assert transferability.nce(source_N, labels_N) == pytest.approx(slow_nce(source_N, labels_N), rel=1e-9)


def test_leep_of_answers_that_are_sure_is_nce_and_bounded_by_the_labels():
    rng = np.random.default_rng(6)
    labels_N, source_N = rng.integers(0, 4, 80), rng.integers(0, 7, 80)
    sure_NZ = np.eye(7)[source_N]
    assert transferability.leep(sure_NZ, labels_N) == pytest.approx(transferability.nce(source_N, labels_N), rel=1e-9)
    assert transferability.nce(labels_N + 5, labels_N) == pytest.approx(0.0, abs=1e-12)
    share_C = np.bincount(labels_N) / 80
    blind = float((share_C * np.log(share_C)).sum())
    assert transferability.leep(np.full((80, 7), 1 / 7), labels_N) == pytest.approx(blind, rel=1e-9)
    assert transferability.nce(np.zeros(80, int), labels_N) == pytest.approx(blind, rel=1e-9)


def test_nleep_is_leep_of_the_mixture(data):
    feats_ND, labels_N = data
    reduced_NR = mixture.principal(transferability.centred_basis(feats_ND), 0.8)
    components = min(15, max(3, len(labels_N) // 4))
    posterior_NK = mixture.fit(reduced_NR, components, 0).posterior_NK(reduced_NR)
    assert transferability.nleep(feats_ND, labels_N, 0) == pytest.approx(slow_leep(posterior_NK, labels_N), rel=1e-9)


def test_all_but_nothing_rank_a_clear_class_above_noise():
    rng = np.random.default_rng(8)
    labels_N = np.arange(120) % 4
    clear_ND = 6 * np.eye(4, 20)[labels_N] + rng.normal(size=(120, 20))
    noise_ND = rng.normal(size=(120, 20))
    for score in (transferability.logme, transferability.h_score):
        assert score(clear_ND, labels_N) > score(noise_ND, labels_N)
    assert transferability.nleep(clear_ND, labels_N, 0) > transferability.nleep(noise_ND, labels_N, 0)


def test_one_class_is_refused(data):
    for score in (transferability.logme, transferability.h_score):
        with pytest.raises(ValueError, match="at least two classes"):
            score(data[0], np.zeros(len(data[1]), int))
    with pytest.raises(ValueError, match="one label for each"):
        transferability.nce(np.zeros(3, int), np.zeros(2, int))
