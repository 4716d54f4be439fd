import numpy as np

from app.serving.best import Prediction, Score, rank


def test_equal_scores_keep_the_order_of_the_labels():
    found = rank(np.array([0.1, 0.3, 0.3, 0.3], np.float32), ("d", "c", "b", "a"), 3, None)
    assert [score["label"] for score in found.scores] == ["c", "b", "a"]
    assert found.label == "c"


def test_equal_scores_keep_the_order_of_many_labels():
    probabilities = np.full(200, 1 / 201, np.float32)
    probabilities[100] = 2 / 201
    labels = [str(index) for index in range(200)]
    found = [score["label"] for score in rank(probabilities, labels, 200, None).scores]
    assert found == ["100", *labels[:100], *labels[101:]]


def test_a_threshold_withholds_the_label_only():
    row = np.array([0.25, 0.75], np.float32)
    scores = [Score(label="b", score=0.75), Score(label="a", score=0.25)]
    assert rank(row, ("a", "b"), 2, 0.75) == Prediction("b", 0.75, scores)
    assert rank(row, ("a", "b"), 2, 0.76) == Prediction(None, 0.75, scores)
    assert rank(row, ("a", "b"), 0, None) == Prediction("b", 0.75, [])


def test_top_k_cuts_and_more_than_all_is_all():
    row = np.array([0.2, 0.5, 0.3], np.float32)
    assert [len(rank(row, ("a", "b", "c"), k, None).scores) for k in (0, 1, 2, 3, 100)] == [0, 1, 2, 3, 3]
