"""Scores of versions on labels that are not theirs, and the comparison of two."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar

from worker.evaluate import versions
from worker.scores import intervals

OWN, GIVEN = ("cat", "dog", "owl"), ("dog", "emu", "cat")


def answers(num: int, num_classes: int = 3, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).random((num, num_classes))
    return rows / rows.sum(axis=1, keepdims=True)


def said(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes)[predicted] * 0.8 + 0.2 / num_classes


def test_labels_are_brought_into_one_numbering() -> None:
    labels_N = np.array([0, 1, 2, 1])
    judged = versions.judge(answers(4), OWN, labels_N, GIVEN)
    assert judged.names == ("cat", "dog", "owl", "emu")
    assert [judged.names[label] for label in judged.labels_N] == ["dog", "emu", "cat", "emu"]
    assert judged.probabilities_NU.shape == (4, 4)
    assert (judged.probabilities_NU[:, 3] == 0).all()
    assert judged.known_N.tolist() == [True, False, True, False]


def test_what_the_model_cannot_say_is_a_miss_and_is_named() -> None:
    labels_N = np.array([0, 0, 2, 2, 1])
    judged = versions.judge(said(np.array([1, 1, 0, 0, 2]), 3), OWN, labels_N, GIVEN)
    found = versions.document(judged)
    assert found["metrics"]["accuracy"] == pytest.approx(4 / 5)
    assert found["metrics"]["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["labels"]["missing"] == [{"label": "emu", "num_items": 1}]
    assert found["labels"]["without_items"] == ["owl"]
    assert found["metrics"]["nll"] is None
    assert found["metrics"]["ece"] is None
    assert set(found["calibration"]["reasons"]) == {"ece", "adaptive_ece", "nll"}
    by_label = {row["label"]: row for row in found["per_class"]}
    assert (by_label["emu"]["recall"], by_label["owl"]["recall"]) == (0.0, None)
    json.dumps(found, allow_nan=False)


def test_scores_equal_scikit_learn() -> None:
    labels_N = np.random.default_rng(2).integers(0, 3, 400)
    judged = versions.judge(answers(400), GIVEN, labels_N, GIVEN)
    flat = versions.figures(judged)
    predicted_N = answers(400).argmax(1)
    assert flat["accuracy"] == pytest.approx(sk.accuracy_score(labels_N, predicted_N))
    assert flat["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))
    assert flat["macro_f1"] == pytest.approx(sk.f1_score(labels_N, predicted_N, average="macro"))
    assert flat["macro_precision"] == pytest.approx(sk.precision_score(labels_N, predicted_N, average="macro"))
    assert flat["ece"] is not None
    assert flat["nll"] == pytest.approx(sk.log_loss(labels_N, answers(400)))


def test_intervals_are_those_of_scipys_bootstrap_where_items_are_many() -> None:
    rng = np.random.default_rng(4)
    labels_N = rng.integers(0, 3, 900)
    a_N, b_N = rng.random(900) < 0.85, rng.random(900) < 0.75
    predicted_N = np.where(a_N, labels_N, (labels_N + 1) % 3)
    for found, sample_N in (
        (intervals.of_scores(labels_N, predicted_N, 3)["accuracy"], a_N.astype(float)),
        (intervals.paired_difference(a_N, b_N), a_N.astype(float) - b_N),
    ):
        known = stats.bootstrap(
            (sample_N,), np.mean, vectorized=True, n_resamples=5000, method="percentile", rng=rng
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.004)


@pytest.mark.parametrize(("only_a", "only_b"), [(12, 3), (5, 5), (0, 1), (20, 40)])
def test_mcnemar_equals_statsmodels(only_a: int, only_b: int) -> None:
    a_N, b_N = np.ones(80, dtype=bool), np.ones(80, dtype=bool)
    b_N[:only_a] = False
    a_N[only_a : only_a + only_b] = False
    table = [[80 - only_a - only_b, only_a], [only_b, 0]]
    assert intervals.mcnemar(a_N, b_N).p_value == pytest.approx(mcnemar(table, exact=True).pvalue)


def pair(wrong_a: slice, wrong_b: slice, num: int = 100) -> tuple[versions.Judged, versions.Judged, np.ndarray]:
    labels_N = np.arange(num) % 3
    found = []
    for wrong in (wrong_a, wrong_b):
        predicted_N = labels_N.copy()
        predicted_N[wrong] = (predicted_N[wrong] + 1) % 3
        found.append(versions.judge(said(predicted_N, 3), GIVEN, labels_N, GIVEN))
    return found[0], found[1], labels_N


@pytest.mark.parametrize(
    ("wrong_a", "wrong_b", "word"),
    [(slice(0, 0), slice(0, 30), "better"), (slice(0, 30), slice(0, 0), "worse"),
     (slice(0, 6), slice(6, 12), "no evidence")],
)  # fmt: skip
def test_the_verdict_follows_the_interval_and_is_a_sentence(wrong_a: slice, wrong_b: slice, word: str) -> None:
    ours, theirs, labels_N = pair(wrong_a, wrong_b)
    found = versions.comparison(ours, theirs, ("m version 2", "m version 1"), np.ones(100, bool), labels_N, GIVEN)
    assert (found["verdict"], found["decided_on"], found["without_seen"]) == (word, "all items", None)
    assert word in found["sentence"].lower()
    assert "m version 2" in found["sentence"]
    low, high = found["difference"]["low"], found["difference"]["high"]
    assert (low > 0, high < 0) == (word == "better", word == "worse")
    assert [row["label"] for row in found["per_class"]] == list(GIVEN)
    for row in found["per_class"]:
        assert row["difference"]["value"] == pytest.approx(row["recall"] - row["recall_against"])
    json.dumps(found, allow_nan=False)


def test_items_that_were_met_before_decide_nothing() -> None:
    """The first is right where it has learned the items, and no better elsewhere."""
    ours, theirs, labels_N = pair(slice(0, 0), slice(0, 30))
    unseen_N = np.ones(100, bool)
    unseen_N[:30] = False
    found = versions.comparison(ours, theirs, ("a", "b"), unseen_N, labels_N, GIVEN)
    assert found["difference"]["value"] == pytest.approx(0.3)
    assert (found["verdict"], found["without_seen"]["num_items"]) == ("no evidence", 70)
    assert "items that neither has met before" in found["sentence"]
    nothing = versions.comparison(ours, theirs, ("a", "b"), np.zeros(100, bool), labels_N, GIVEN)
    assert (nothing["verdict"], nothing["without_seen"]) == ("no evidence", None)
    assert nothing["sentence"].startswith("No evidence: every item")
    unknown = versions.comparison(ours, theirs, ("a", "b"), None, labels_N, GIVEN)
    assert unknown["verdict"] == "better"
    assert "is not known" in unknown["sentence"]
