import numpy as np
import pytest
from sklearn.metrics import f1_score

from app.errors import JobFailure
from worker.methods import few_shot
from worker.training import probing


def blobs(per_class=30, num_classes=3, width=20, distance=6.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    centres = generator.normal(size=(num_classes, width)) * distance / np.sqrt(width)
    return (generator.normal(size=(len(labels), width)) + centres[labels]).astype(np.float32), labels


def fit(features, labels, groups=None, num_classes=3, seed=0):
    rows = np.arange(len(labels))
    return probing.fit(features, labels, rows if groups is None else groups, rows, num_classes, seed)


def test_separable_classes_are_learned_and_every_prediction_is_out_of_fold():
    features, labels = blobs()
    head, selection, fold_accuracy, details = fit(features, labels)
    assert (head.logits(features).argmax(1) == labels).mean() > 0.97
    assert len(fold_accuracy) == probing.NUM_FOLDS
    accuracy = (selection.logits.argmax(1) == labels).mean()
    assert accuracy == pytest.approx(details[f"{details['chosen'].split()[0]}_accuracy"])
    assert accuracy < (head.logits(features).argmax(1) == labels).mean() + 1e-9


def test_shuffled_labels_give_chance():
    features, labels = blobs(per_class=60)
    _, selection, _, _ = fit(features, np.random.default_rng(1).permutation(labels))
    assert abs((selection.logits.argmax(1) == np.random.default_rng(1).permutation(labels)).mean() - 1 / 3) < 0.12


def test_copies_do_not_decide_for_ridge():
    # Pure noise, every picture twice: leaving one copy out, ridge still knows the other.
    generator = np.random.default_rng(0)
    once = generator.normal(size=(40, 200)).astype(np.float32)
    labels = generator.integers(0, 2, 40)
    features, doubled, groups = np.repeat(once, 2, axis=0), np.repeat(labels, 2), np.repeat(np.arange(40), 2)
    _, selection, _, details = fit(features, doubled, groups, num_classes=2)
    assert details["ridge_leave_one_out_accuracy"] > 0.8  # it is fooled
    assert details["ridge_accuracy"] < 0.75  # on whole folds it is not
    assert (selection.logits.argmax(1) == doubled).mean() < 0.75


def test_few_pictures_get_fewer_folds():
    features, labels = blobs(per_class=1)
    _, selection, fold_accuracy, _ = fit(np.repeat(features, 2, axis=0), np.repeat(labels, 2))
    assert len(fold_accuracy) == min(probing.NUM_FOLDS, 6)
    assert not selection.is_blind


def test_one_picture_of_each_class_is_fitted_and_tells_no_accuracy():
    features, labels = blobs(per_class=1)
    head, selection, fold_accuracy, _ = fit(features, labels)
    assert (head.logits(features).argmax(1) == labels).all()
    assert fold_accuracy == ()
    assert selection.is_blind


def test_one_picture_is_refused():
    with pytest.raises(JobFailure, match="at least 2 different pictures") as caught:
        fit(np.ones((4, 3), np.float32), np.zeros(4, np.int64), np.zeros(4, np.int64))
    assert caught.value.code == "dataset_invalid"


def test_the_same_seed_gives_the_same_bits():
    features, labels = blobs(distance=3.0)
    first, second = fit(features, labels, seed=3), fit(features, labels, seed=3)
    assert np.array_equal(first[0].weight_CD, second[0].weight_CD)
    assert first[0].temperature == second[0].temperature


def test_where_ridge_is_served_its_figures_are_those_of_whole_folds():
    # Many weak, correlated features and one-hot targets: ridge's home.
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    features = (generator.normal(size=(120, 400)) + 0.18 * generator.normal(size=(3, 400))[labels]).astype(np.float32)
    for seed in range(10):
        _, selection, fold_accuracy, details = fit(features, labels, seed=seed)
        name = details["chosen"].split()[0].rstrip(",")
        accuracy = float((selection.logits.argmax(1) == labels).mean())
        assert details[f"{name}_accuracy"] == pytest.approx(accuracy)
        assert np.mean(fold_accuracy) == pytest.approx(accuracy, abs=0.02)


@pytest.mark.parametrize("method", [probing, few_shot])
@pytest.mark.parametrize("distance", [2.0, 6.0])
def test_other_draws_of_the_folds_are_the_same_fit_under_other_folds(method, distance):
    """Each draw is what the method gives with that draw's seed, as far as its choice does not depend on it."""
    features, labels = blobs(distance=distance)
    names = np.arange(len(labels))

    def selection(seed, *more):
        found = method.fit(features, labels, names, names, 3, seed, *more)
        return found.selection if method is few_shot else found[1]

    first, *alone = (selection(seed) for seed in (5, 6, 7))
    drawn = selection(5, 3)
    assert first.again == ()
    assert np.array_equal(drawn.logits, first.logits)
    for logits_NC, other in zip(drawn.again, alone, strict=True):
        assert not np.array_equal(logits_NC, first.logits)
        named_N = logits_NC.argmax(1)
        assert (named_N == other.logits.argmax(1)).mean() >= 0.97


def uneven(seed, sizes=(120, 8, 8)):
    features, labels = blobs(per_class=max(sizes), distance=1.5, seed=seed)
    rows = np.concatenate([np.flatnonzero(labels == label)[:size] for label, size in enumerate(sizes)])
    return features[rows], labels[rows]


def macro_f1(selection, labels):
    return f1_score(labels, selection.logits.argmax(1), average="macro")


def test_strengths_are_chosen_by_the_objective():
    """Of a large class and two small ones a strong penalty names the large one alone, and is as often right."""
    found = []
    for seed in range(6):
        features, labels = uneven(seed)
        rows = np.arange(len(labels))
        by_accuracy, by_f1 = (
            probing.fit(features, labels, rows, rows, 3, 0, 1, objective) for objective in ("accuracy", "macro_f1")
        )
        found.append((macro_f1(by_accuracy[1], labels), macro_f1(by_f1[1], labels)))
    by_accuracy_S, by_f1_S = np.array(found).T
    assert by_f1_S.mean() > by_accuracy_S.mean() + 0.02
    assert (by_f1_S >= by_accuracy_S - 0.02).all()
