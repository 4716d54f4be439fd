"""Drift between datasets: none at all, other images, other shares of classes, one class that moved."""

import json

import numpy as np

from tests.worker.advice import samples
from worker.advice import drift


def side(names, seed=0, groups=None):
    index = samples.index(names, ["train"] * len(names))
    return drift.draw(index, seed)


def features(names, seed, shift=None):
    """Gaussian classes; `shift` moves some of them."""
    rng = np.random.default_rng(seed)
    centres = {"a": 0, "b": 1, "c": 2, None: 3}
    rows = [6 * np.eye(1, 10, centres[name])[0] + (shift or {}).get(name, 0.0) for name in names]
    return (np.array(rows) + rng.normal(size=(len(names), 10))).astype(np.float32)


NAMES = ["a", "b", "c"] * 30


def compare(there_names=NAMES, shift=None, here_names=NAMES):
    here, there = side(here_names), side(there_names)
    found, document = drift.compare(here, there, features(here_names, 1), features(there_names, 2, shift), 0)
    json.dumps(document, allow_nan=False)
    return found.findings, document


def test_no_drift_can_be_said():
    findings, document = compare()
    assert findings == ()
    assert (document["images_differ"], document["labels"]["differ"]) == (False, False)
    assert document["message"].startswith("no drift was found in 90 and 90 different pictures")
    for test in document["tests"].values():
        assert test["value"] <= 2 * max(test["null_95"], test["null_mean"])


def test_other_images_and_the_class_that_moved():
    findings, document = compare(shift={"b": np.full(10, 1.5)})
    assert [(one.data["test"], one.label) for one in findings] == [("images", None), ("class", "b")]
    assert document["classes"][0]["name"] == "b"
    assert document["labels"]["differ"] is False
    assert findings[0].confidence >= 0.95
    # What is shown of a class is of that class.
    images, moved = findings
    assert len({*images.rows}) == len({*moved.rows}) == len({*images.against}) == drift.SHOWN
    assert {NAMES[row] for row in moved.rows} == {NAMES[row] for row in moved.against} == {"b"}


def test_the_images_shown_are_those_that_the_other_dataset_has_not():
    here, there = ["a"] * 60 + ["b"] * 20, ["c"] * 20 + ["a"] * 60
    findings, _ = compare(there, here_names=here)
    (told,) = [one for one in findings if one.data["test"] == "images"]
    assert {here[row] for row in told.rows} == {"b"}
    assert {there[row] for row in told.against} == {"c"}


def test_other_shares_of_the_same_images():
    findings, document = compare(["a"] * 60 + ["b"] * 15 + ["c"] * 15)
    told = {one.data["test"]: one for one in findings}
    assert "labels" in told
    assert "'a', 33.3% here and 66.7% there" in told["labels"].message
    assert document["labels"]["cramers_v"] > 0.2
    assert "class" not in told


def test_datasets_without_a_class_in_common_are_not_said_to_have_other_shares():
    findings, document = compare(["c"] * 60, here_names=["a", "b"] * 30)
    told = {one.data["test"]: one for one in findings}
    assert (document["only_here"], document["only_there"]) == (["a", "b"], ["c"])
    for name in ("images", "labels"):
        assert "no class in common" in told[name].message
        assert "equally frequent" not in told[name].message
    assert "rename classes" in told["labels"].message


def test_without_labels_images_are_compared():
    names = [None] * 60
    findings, document = compare(names, here_names=names)
    assert findings == ()
    assert document["labels"] is None
    assert "labels in both datasets" in document["labels_reason"]
    assert document["classes"] == []


def test_classes_of_one_side_are_named():
    _, document = compare(["a", "c"] * 40)
    assert (document["only_here"], document["only_there"]) == (["b"], [])


def test_copies_count_once_and_few_pictures_are_not_compared(monkeypatch):
    index = samples.index(["a"] * 30, ["train"] * 30, [5] * 15 + [2**40 + 3 * 7**place for place in range(15)])
    found = drift.draw(index, 0)
    assert len(found.rows) == len(np.unique(index.group)) < 20
    assert found.counts == {"a": len(found.rows)}
    assert "expected at least 20 different pictures" in drift.reason(found, side(NAMES))
    assert drift.reason(side(NAMES), side(NAMES)) is None
    monkeypatch.setattr(drift, "SAMPLES", 25)
    assert len(side(NAMES).rows) == 25
