import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from app.artifact import scores
from worker.solvers import left_out, ridge


def blobs(sizes, width=12, distance=1.5, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = generator.normal(size=(len(sizes), width)) * distance / np.sqrt(width)
    return scores.unit(generator.normal(size=(len(labels), width)) / 3 + centres[labels]), labels


def slowly(units, labels, groups, num_classes):
    """Each item by class means that loops add up without its group; the spread is everybody's."""
    within, freedom = 0.0, 0
    for label in range(num_classes):
        items = [unit for unit, other in zip(units, labels, strict=True) if other == label]
        if len(items) > 1:
            within += sum(((unit - np.mean(items, 0)) ** 2).sum() for unit in items)
            freedom += len(items) - 1
    spread = within / freedom if freedom else 0.0
    logits = np.empty((len(labels), num_classes))
    for row in range(len(labels)):
        for label in range(num_classes):
            items = [units[j] for j in range(len(labels)) if labels[j] == label and groups[j] != groups[row]]
            if items:
                mean = np.mean(items, 0)
                logits[row, label] = units[row] @ mean - (mean @ mean - spread / len(items)) / 2
            else:
                logits[row, label] = left_out.ABSENT
    return logits


def test_folds_are_asked_one_by_one_by_rising_number_and_answers_lie_where_the_items_do():
    folds = np.array([7, 2, 7, 5, 2])
    asked = []

    def predict(out):
        asked.append(out.tolist())
        return np.stack([np.flatnonzero(out), np.full(out.sum(), len(asked))], 1)

    found = left_out.by_fold(folds, 2, predict)
    assert asked == [(folds == number).tolist() for number in (2, 5, 7)]
    assert found.tolist() == [[0, 3], [1, 1], [2, 3], [3, 2], [4, 1]]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2), (1, 5, 9), (4, 0, 6)])
def test_centroid_without_the_item_is_what_a_loop_finds(sizes):
    units, labels = blobs(sizes)
    generator = np.random.default_rng(1)
    for groups in (np.arange(len(labels)), generator.integers(0, max(2, len(labels) // 2), len(labels))):
        found = left_out.centroid(units, labels, groups, len(sizes))
        np.testing.assert_allclose(found, slowly(units, labels, groups, len(sizes)), atol=1e-9)


def test_equal_classes_are_named_as_scikit_learn_names_them():
    units, labels = blobs((7, 7, 7, 7))
    new, _ = blobs((30, 30, 30, 30), seed=0)
    sums, counts = left_out.class_sums(units, labels, 4)
    weight, bias = left_out.centroid_rows(sums, counts, left_out.spread(sums, counts))
    known = NearestCentroid().fit(units, labels)
    assert np.array_equal((new @ weight.T + bias).argmax(1), known.predict(new))
    plain = left_out.centroid_rows(sums, counts, 0.0)
    distances = ((new[:, None] - known.centroids_) ** 2).sum(2)
    np.testing.assert_allclose(new @ plain[0].T + plain[1], -0.5 * distances + 0.5, atol=1e-9)


def test_spread_is_the_mean_squared_distance_from_the_true_mean():
    generator = np.random.default_rng(3)
    units, labels = blobs((3,) * 400, distance=0.0, seed=3)
    shuffled = generator.permutation(len(units))
    sums, counts = left_out.class_sums(units[shuffled], labels, 400)
    # All classes are one: its spread is known from all items, and from three an unbiased estimate.
    assert left_out.spread(sums, counts) == pytest.approx(1 - np.square(units.mean(0)).sum(), rel=0.02)
    assert left_out.spread(*left_out.class_sums(units[:2], np.array([0, 1]), 2)) == 0.0


def test_neighbours_are_those_of_other_groups(monkeypatch):
    units, labels = blobs((8, 9, 10))
    groups = np.random.default_rng(2).integers(0, 12, len(labels))
    for elements in (2**24, 60):
        monkeypatch.setattr(left_out, "_CHUNK_ELEMENTS", elements)
        similarity, found = left_out.nearest(units, labels, groups, 5)
        for row in range(len(labels)):
            allowed = [j for j in range(len(labels)) if groups[j] != groups[row]]
            others = sorted(((units[row] @ units[j], labels[j]) for j in allowed), reverse=True)[:5]
            np.testing.assert_allclose(similarity[row], [value for value, _ in others], atol=1e-9)
            assert list(found[row]) == [label for _, label in others]


@pytest.mark.parametrize("width", [5, 60])
def test_ridge_without_a_group_is_a_fit_to_the_rest(width):
    units, labels = blobs((9, 10, 11), width=width)
    groups = np.random.default_rng(4).integers(0, 20, len(labels))
    targets = ridge.one_hot(labels, 3)
    for strength in (0.01, 1.0):
        found = ridge.leave_groups_out(units, targets, groups, strength)
        np.testing.assert_allclose(found, ridge.leave_folds_out(units, targets, groups, strength), atol=1e-7)
    alone = ridge.leave_groups_out(units, targets, np.arange(30), 1.0)
    np.testing.assert_allclose(alone, ridge.leave_one_out(units, targets, (1.0,)).predictions_LNC[0], atol=1e-9)
    with pytest.raises(ValueError, match="at least two groups"):
        ridge.leave_groups_out(units, targets, np.zeros(30, int), 1.0)
