import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from app.artifact import scores
from app.errors import JobFailure
from tests.app.onnx_factories import run as run_graph
from tests.worker.training.test_probing import blobs, macro_f1, uneven
from worker.methods import few_shot, few_shot_heads
from worker.solvers import left_out, ridge


def fit(features, labels, groups=None, num_classes=3, seed=0):
    rows = np.arange(len(labels))
    return few_shot.fit(features, labels, rows if groups is None else groups, rows, num_classes, seed)


def crossed(per_class=60, seed=0):
    """Each class lies at both ends of its own axis: no mean and no plane separates them, neighbours do."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1], per_class)
    features = generator.normal(size=(2 * per_class, 6)) * 0.2
    features[np.arange(2 * per_class), labels] += np.tile([-1.0, 1.0], per_class)
    return features.astype(np.float32), labels


@pytest.mark.parametrize("per_class", [1, 2, 5, 40, 60])
def test_separable_classes_are_learned_from_however_few(per_class):
    features, labels = blobs(per_class=per_class, distance=9.0)
    fitted = fit(features, labels)
    new, truth = blobs(per_class=50, distance=9.0)
    assert (fitted.head.logits(new).argmax(1) == truth).mean() > 0.9
    assert fitted.selection.logits.shape == (len(labels), 3)
    assert np.isfinite(fitted.selection.logits).all()
    assert fitted.calibrated in (True, False)


def test_the_cheapest_is_served_where_nothing_can_be_told():
    features, labels = blobs(per_class=1)
    fitted = fit(features, labels)
    assert fitted.details["chosen"] == "nearest centroid"
    assert not fitted.calibrated
    assert fitted.head.temperature == few_shot.TEMPERATURE
    # Whose class is left out with it cannot be named: that is no accuracy of nought.
    assert fitted.fold_accuracy == ()
    assert len(fit(*blobs(per_class=2)).fold_accuracy) > 1


def test_neighbours_are_served_where_only_they_can():
    features, labels = crossed()
    fitted = fit(features, labels, num_classes=2)
    accuracy = {row["name"]: row["accuracy"] for row in fitted.details["left_out"]}
    assert fitted.head.kind == "neighbours", accuracy
    assert (fitted.head.logits(crossed(seed=1)[0]).argmax(1) == crossed(seed=1)[1]).mean() > 0.95


def test_ridge_is_served_where_a_shared_direction_misleads_means():
    # Two directions: one loud and the same for all classes, one quiet that tells them apart.
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 70)
    features = generator.normal(size=(140, 30)).astype(np.float32) * 0.1
    features[:, 0] += 3 * generator.normal(size=140)
    features[:, 1] += np.where(labels == 1, 0.5, -0.5) + 0.15 * features[:, 0]
    fitted = fit(features, labels, num_classes=2)
    assert str(fitted.details["chosen"]).startswith("ridge")


def test_a_centroid_head_is_scikit_learns_on_equal_classes():
    features, labels = blobs(per_class=6, distance=3.0)
    head = few_shot_heads.centroid(features, labels, 3)
    new, _ = blobs(per_class=80, distance=3.0)
    unit = scores.unit(features - features.mean(0))
    known = NearestCentroid().fit(unit, labels).predict(scores.unit(new - features.mean(0)))
    assert np.array_equal(head.logits(new).argmax(1), known)


@pytest.mark.parametrize("kind", ["centroid", "ridge", "neighbours"])
def test_the_graph_says_what_the_head_says(kind):
    features, labels = blobs(per_class=9, distance=3.0)
    build = {
        "centroid": lambda: few_shot_heads.centroid(features, labels, 3),
        "ridge": lambda: few_shot_heads.ridge_head(features, labels, 3, 0.5),
        "neighbours": lambda: few_shot_heads.neighbours(features, labels, 3, 5),
    }
    head = build[kind]()
    new = blobs(per_class=40, distance=3.0, seed=5)[0]
    served = run_graph(head.graph(), features=new)["probabilities"]
    np.testing.assert_allclose(served, head.probabilities(new), atol=1e-5)
    stored = scores.probabilities(head.kind, head.tensors(), head.temperature, new)
    np.testing.assert_allclose(stored, head.probabilities(new), atol=1e-9)


def test_with_many_pictures_one_in_the_mean_changes_nothing():
    """Closed forms leave a picture in the centring mean; from MAX_REFITS on that is what they may."""
    features, labels = blobs(per_class=43, distance=2.5)
    groups = np.arange(len(labels))
    assert len(labels) > few_shot.MAX_REFITS
    unit = scores.unit(features - features.mean(0)).astype(np.float32)
    exact = left_out.refitted(lambda x, y: few_shot_heads.centroid(x, y, 3), features, labels, groups, 3)
    closed = left_out.centroid(unit, labels, groups, 3)
    assert np.abs(exact - closed).max() < 0.02
    assert (exact.argmax(1) == closed.argmax(1)).mean() > 0.98
    assert abs((exact.argmax(1) == labels).mean() - (closed.argmax(1) == labels).mean()) < 0.01
    refitted = left_out.refitted(lambda x, y: few_shot_heads.ridge_head(x, y, 3, 1.0), features, labels, groups, 3)
    at_once = ridge.leave_groups_out(unit, ridge.one_hot(labels, 3), groups, 1.0)
    assert np.abs(refitted - at_once).max() < 0.05


def test_copies_of_a_picture_do_not_flatter():
    # Pure noise, every picture three times: who leaves one copy out still knows the others.
    generator = np.random.default_rng(0)
    once, names = generator.normal(size=(60, 100)).astype(np.float32), generator.integers(0, 2, 60)
    features, labels, groups = np.repeat(once, 3, 0), np.repeat(names, 3), np.repeat(np.arange(60), 3)
    fooled, honest = fit(features, labels, num_classes=2), fit(features, labels, groups, num_classes=2)
    assert max(row["accuracy"] for row in fooled.details["left_out"]) == 1.0
    assert max(row["accuracy"] for row in honest.details["left_out"]) < 0.7
    assert (honest.selection.logits.argmax(1) == labels).mean() < 0.7


def test_a_class_without_an_image_is_never_named():
    features, labels = blobs(per_class=5)
    fitted = fit(features, np.where(labels == 2, 3, labels), num_classes=4)
    assert set(fitted.head.logits(blobs(per_class=50)[0]).argmax(1)) <= {0, 1, 3}


def test_shuffled_labels_give_chance():
    features, labels = blobs(per_class=60)
    shuffled = np.random.default_rng(1).permutation(labels)
    fitted = fit(features, shuffled)
    assert abs((fitted.selection.logits.argmax(1) == shuffled).mean() - 1 / 3) < 0.12


def test_folds_are_the_probes_own():
    from worker.training import probing

    features, labels = blobs(per_class=8)
    rows = np.arange(len(labels))
    probe = probing.fit(features, labels, rows, rows, 3, 4)[1]
    fitted = fit(features, labels, seed=4)
    assert np.array_equal(fitted.selection.rows, probe.rows)
    assert fitted.selection.what == probe.what == "out of 5 folds"


def test_the_same_seed_gives_the_same_bits():
    features, labels = blobs(per_class=30, distance=3.0)
    first, second = fit(features, labels, seed=3), fit(features, labels, seed=3)
    for name, array in first.head.tensors().items():
        assert np.array_equal(array, second.head.tensors()[name])
    assert first.head.temperature == second.head.temperature


def test_one_picture_is_refused():
    with pytest.raises(JobFailure, match="at least 2 different pictures"):
        fit(np.ones((4, 3), np.float32), np.zeros(4, np.int64), np.zeros(4, np.int64))


def test_the_kind_is_chosen_by_the_objective():
    found = []
    for seed in range(6):
        features, labels = uneven(seed)
        rows = np.arange(len(labels))
        by_accuracy, by_f1 = (
            few_shot.fit(features, labels, rows, rows, 3, 0, 1, objective) for objective in ("accuracy", "macro_f1")
        )
        found.append((macro_f1(by_accuracy.selection, labels), macro_f1(by_f1.selection, labels)))
        assert {tuple(one) for one in by_f1.details["left_out"]} == {("name", "macro_f1")}
        best = max(one["macro_f1"] for one in by_f1.details["left_out"])
        assert 0.0 < best < 1.0
    by_accuracy_S, by_f1_S = np.array(found).T
    assert by_f1_S.mean() > by_accuracy_S.mean()
