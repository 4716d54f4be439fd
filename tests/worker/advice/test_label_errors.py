"""Wrong labels in real data: how many are found, how many of those named are wrong, and what clean data gives."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from worker.advice import label_errors, out_of_fold
from worker.advice.label_errors import MIN_ITEMS

SEEDS = range(2)
RATE = 0.05


@pytest.fixture(scope="module")
def digits():
    """600 scans of digits, their 64 pixels as features."""
    data, labels = load_digits(return_X_y=True)
    return data[:600].astype(np.float32), labels[:600].astype(np.int64)


def damaged(labels, seed, rate=RATE):
    """Labels of which some were drawn anew among the other classes, and which."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    given = labels.copy()
    given[rows] = (labels[rows] + rng.integers(1, labels.max() + 1, len(rows))) % (labels.max() + 1)
    return given, given != labels


def judged(feats, labels, seed):
    logits = out_of_fold.logits(feats, labels, np.arange(len(labels)), int(labels.max()) + 1, seed)
    return label_errors.judge(logits, labels)


@pytest.fixture(params=["digits", "emoji"])
def real(request):
    return request.getfixturevalue(request.param)


def test_labels_drawn_anew_are_found(real):
    """Recall at least 0.7 at a precision of at least 0.5 over the seeds, and most get their own label back."""
    feats, labels = real
    right, named, wrong, mended = 0, 0, 0, 0
    for seed in SEEDS:
        given, is_wrong = damaged(labels, seed)
        found = judged(feats, given, seed)
        hits = found.suspects[is_wrong[found.suspects]]
        right, named, wrong = right + len(hits), named + len(found.suspects), wrong + int(is_wrong.sum())
        mended += int((found.confident.class_N[hits] == labels[hits]).sum())
        assert found.noise.rate == pytest.approx(RATE, abs=0.03)
    assert right / wrong >= 0.7
    assert right / named >= 0.5
    assert mended / right >= 0.6


def test_clean_labels_give_hardly_any(real):
    """False positives: at most one in a hundred images."""
    feats, labels = real
    found = judged(feats, labels, 0)
    assert len(found.suspects) <= 0.01 * len(labels)
    # Confident learning alone names what the model confuses, which is why it does not decide.
    assert (found.confident.class_N != labels).sum() > len(found.suspects)


def test_images_of_a_tiny_class_are_not_suspects(digits):
    feats, labels = digits
    given = labels.copy()
    given[np.flatnonzero(labels == 3)[:4]] = 10
    found = judged(feats, given, 0)
    assert not (given[found.suspects] == 10).any()


def test_findings_say_what_to_do(digits):
    feats, labels = digits
    given, _ = damaged(labels, 0)
    found = judged(feats, given, 0)
    names = tuple("abcdefghij")
    rows = np.arange(len(labels)) + 1000
    findings = label_errors.find(found, given, names, rows).findings
    assert [one.confidence for one in findings] == sorted((one.confidence for one in findings), reverse=True)
    sure = [one for one in findings if one.action == "relabel"]
    assert sure
    for one in sure:
        assert one.change == one.rows
        assert one.new_label != one.label == names[given[one.rows[0] - 1000]]
    assert all(one.change == () and one.new_label is None for one in findings if one.action == "look")
    told = label_errors.summary(found)
    assert told["estimated_share_wrong"] == pytest.approx(RATE, abs=0.02)
    assert 0.5 < told["expected_share_of_listed"] <= 1


@pytest.mark.parametrize("sharpness", [1.0, 2.5])
def test_doubt_is_no_noise(sharpness):
    """A model that is often wrong, and knows how often, has hardly a wrong label to show: one in two hundred."""
    named = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(400, 5)) * sharpness
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
        named += len(label_errors.judge(logits, labels).suspects)
    assert named <= 20 * 400 / 200


def test_where_doubt_explains_as_much_as_noise_what_is_surely_wrong_is_shown():
    """A smooth model that gives all labels 0.94, and five of 125 that are something else."""
    probs = np.tile([0.94, 0.04, 0.02], (125, 1))
    probs[50:75], probs[75:] = probs[50:75, [1, 0, 2]], probs[75:, [2, 1, 0]]
    labels = probs.argmax(1)
    labels[:5] = [1, 1, 1, 2, 2]
    found = label_errors.judge(np.log(probs), labels)
    assert found.noise.ratio < label_errors.MIN_RATIO
    assert sorted(found.suspects.tolist()) == [0, 1, 2, 3, 4]
    assert found.confident.class_N[:5].tolist() == [0] * 5


def test_too_few_labels_are_not_judged():
    assert "found 29" in label_errors.reason(np.zeros(MIN_ITEMS - 1, np.int64), None)
    assert label_errors.reason(np.zeros(MIN_ITEMS, np.int64), None) is None


def test_a_list_of_certainties_has_none():
    assert label_errors._percent(1.0) == "more than 99%"
    assert label_errors._percent(0.5) == "50%"
