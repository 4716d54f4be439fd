import json

import numpy as np
import pytest
from sklearn import metrics as sk

from worker.scores import metrics

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]


def scored(seed: int = 0, num_items: int = 300, num_classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(num_classes, size=num_items, p=np.arange(1, num_classes + 1) / 28)
    logits_NC = rng.normal(size=(num_items, num_classes)) + 1.5 * np.eye(num_classes)[labels_N]
    probabilities_NC = np.exp(logits_NC)
    return probabilities_NC / probabilities_NC.sum(axis=1, keepdims=True), labels_N


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_scikit_learn(seed: int) -> None:
    probabilities_NC, labels_N = scored(seed)
    predicted_N = probabilities_NC.argmax(axis=1)
    found = metrics.classification(probabilities_NC, labels_N, NAMES)
    macro = sk.precision_recall_fscore_support(labels_N, predicted_N, average="macro", zero_division=0)
    flat = found.flat()
    assert flat["accuracy"] == pytest.approx(sk.accuracy_score(labels_N, predicted_N))
    assert flat["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))
    assert [flat[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(list(macro[:3]))
    assert flat["top_5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels_N, probabilities_NC, k=5))
    assert flat["nll"] == pytest.approx(sk.log_loss(labels_N, probabilities_NC))
    per_class = sk.precision_recall_fscore_support(labels_N, predicted_N, zero_division=0)
    for index, scores in enumerate(found.per_class):
        assert [scores["precision"], scores["recall"], scores["f1"]] == pytest.approx([c[index] for c in per_class[:3]])
        assert scores["num_samples"] == per_class[3][index]
    assert (found.confusion_CC == sk.confusion_matrix(labels_N, predicted_N)).all()
    assert flat["worst_class_recall"] == pytest.approx(per_class[1].min())


def test_a_class_without_items_is_null_and_out_of_the_macro_average() -> None:
    probabilities_NC = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1]])
    found = metrics.classification(probabilities_NC, np.array([0, 0, 1]), ["a", "b", "c"])
    assert found.per_class[2] == {"name": "c", "num_samples": 0, "precision": None, "recall": None, "f1": None}
    assert found.macro_recall == pytest.approx((0.5 + 1.0) / 2)
    assert found.macro_precision == pytest.approx(1.0)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1.0) / 2)
    assert found.top_5_accuracy is None


def test_never_predicted_class_scores_zero_not_null() -> None:
    found = metrics.classification(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), ["a", "b"])
    assert found.per_class[1] == {"name": "b", "num_samples": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_most_confused_pairs_are_sorted_and_json_ready() -> None:
    labels_N = np.array([0] * 10 + [1] * 4 + [2] * 4)
    predicted_N = np.array([0] * 7 + [1, 1, 2] + [0, 0, 1, 1] + [2, 2, 2, 0])
    found = metrics.classification(np.eye(3)[predicted_N], labels_N, ["a", "b", "c"])
    assert [(p["label"], p["predicted"], p["num_samples"]) for p in found.most_confused] == [
        ("b", "a", 2),
        ("a", "b", 2),
        ("c", "a", 1),
        ("a", "c", 1),
    ]
    assert found.most_confused[0]["fraction"] == 0.5
    document = json.loads(json.dumps([found.flat(), found.per_class, found.most_confused, found.confusion()]))
    assert document[3]["matrix"][0] == [7, 2, 1]


def test_wrong_shapes_and_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="one row per label"):
        metrics.classification(np.ones((2, 2)) / 2, np.array([0]), ["a", "b"])
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        metrics.classification(np.ones((1, 2)) / 2, np.array([2]), ["a", "b"])
