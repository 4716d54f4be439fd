"""What features say, against fits without each group; and copies, which must not help."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from app.artifact import scores
from app.errors import JobFailure
from worker.ranking import evidence
from worker.solvers.folds import stratified_group_folds


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels_N = np.arange(60) % 3
    feats_ND = (1.2 * np.eye(3, 10)[labels_N] + rng.normal(size=(60, 10))).astype(np.float32)
    groups_N = np.arange(60)
    groups_N[3:9] = [3, 3, 4, 4, 4, 4]  # groups of two labels, too
    return feats_ND, labels_N, groups_N


def without(feats_ND, labels_N, left_N, strength):
    """Right or wrong of scikit-learn's ridge, fitted again without each group."""
    standard_ND = (feats_ND - feats_ND.mean(0)) / feats_ND.std(0)
    right_N = np.zeros(len(labels_N), bool)
    for group in np.unique(left_N):
        out_N = left_N == group
        fitted = Ridge(strength).fit(standard_ND[~out_N], np.eye(3)[labels_N[~out_N]])
        right_N[out_N] = fitted.predict(standard_ND[out_N]).argmax(1) == labels_N[out_N]
    return right_N


def test_ridge_leaves_whole_groups_and_whole_folds_out(data):
    found = evidence.look(*data, 3, 0)
    feats_ND, labels_N, groups_N = data
    np.testing.assert_array_equal(found.ridge_N, without(feats_ND, labels_N, groups_N, found.strength))
    assert found.num_folds == 5
    assert found.folds_RN.shape == (10, 60)
    for draw, right_N in enumerate(found.folds_RN):
        folds_N = stratified_group_folds(labels_N, groups_N, 5, draw)
        np.testing.assert_array_equal(right_N, without(feats_ND, labels_N, folds_N, found.strength))
    assert 0.5 < found.folds_RN.mean() < 1
    assert len({right_N.tobytes() for right_N in found.folds_RN}) > 1


def test_the_more_images_the_fewer_draws():
    assert [evidence.num_draws(number) for number in (10, 1000, 2500, 10_000)] == [10, 10, 4, 2]


def test_who_is_alone_in_a_class_counts_in_no_score(data):
    """Class 3 has one picture, in two copies: nobody can name it right when it is left out."""
    feats_ND, labels_N, groups_N = data
    labels_N = np.append(labels_N, [3, 3])
    groups_N = np.append(groups_N, [60, 60])
    feats_ND = np.append(feats_ND, feats_ND[:1].repeat(2, axis=0) + 9, axis=0)
    found = evidence.look(feats_ND, labels_N, groups_N, 4, 0)
    np.testing.assert_array_equal(found.can_be_right_N, labels_N < 3)
    assert not found.is_blind
    assert not found.ridge_N[60:].any()
    assert found.scores["ridge_loo"] == found.ridge_N[:60].mean() > found.ridge_N.mean()


def test_where_every_class_has_one_picture_nothing_is_said():
    feats_ND = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    found = evidence.look(feats_ND, np.arange(8) // 2, np.arange(8) // 2, 4, 0)
    assert found.is_blind
    assert set(found.scores.values()) == {None}
    # Two classes that share a picture, and one more of one of them: that one can be named right.
    np.testing.assert_array_equal(evidence.can_be_right(np.array([0, 1, 1]), np.array([0, 0, 1])), [False, True, True])


def test_neighbours_and_centroids_are_loops(data):
    found = evidence.look(*data, 3, 0)
    feats_ND, labels_N, groups_N = data
    unit_ND = scores.unit(feats_ND - feats_ND.mean(0))
    for item in range(60):
        others = np.flatnonzero(groups_N != groups_N[item])
        near = others[np.argsort(-(unit_ND[others] @ unit_ND[item]), kind="stable")[: evidence.NEIGHBOURS + 1]]
        alike = unit_ND[near] @ unit_ND[item]
        votes = np.bincount(labels_N[near[:-1]], weights=alike[:-1] - alike[-1], minlength=3)
        assert found.knn_N[item] == (votes.argmax() == labels_N[item])
    agree = [
        found.centroid_N[item]
        == (
            NearestCentroid().fit(unit_ND[groups_N != groups_N[item]], labels_N[groups_N != groups_N[item]])
            .predict(unit_ND[item : item + 1])[0] == labels_N[item]
        )
        for item in range(60)
    ]  # fmt: skip
    assert np.mean(agree) > 0.95  # ours takes off what a mean of fewer images is longer by
    np.testing.assert_allclose(found.decisive_N, (found.knn_N.astype(float) + found.ridge_N) / 2)


def test_copies_do_not_help():
    """Noise in four copies each: whoever leaves single images out would find the twin."""
    rng = np.random.default_rng(1)
    feats_ND = np.repeat(rng.normal(size=(100, 40)), 4, axis=0).astype(np.float32)
    labels_N, groups_N = np.repeat(np.arange(100) % 4, 4), np.repeat(np.arange(100), 4)
    found = evidence.look(feats_ND, labels_N, groups_N, 4, 0)
    assert max(*found.scores.values(), found.folds_RN.mean()) < 0.4
    fooled = evidence.look(feats_ND, labels_N, np.arange(400), 4, 0)
    assert fooled.scores["knn_loo"] > 0.9


def test_with_two_pictures_there_are_no_neighbours_to_ask():
    found = evidence.look(np.eye(2, 5, dtype=np.float32), np.arange(2), np.arange(2), 2, 0)
    assert found.knn_N is None
    assert found.scores["knn_loo"] is None
    np.testing.assert_array_equal(found.decisive_N, found.ridge_N.astype(float))
    with pytest.raises(JobFailure, match="2 different pictures"):
        evidence.look(np.eye(2, 5, dtype=np.float32), np.arange(2), np.zeros(2, int), 2, 0)
