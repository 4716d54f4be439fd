"""The document of findings: ids, caps, the images that are named; and which of them get a picture."""

import pytest

from tests.worker.advice import samples
from worker.advice import findings, thumbnails
from worker.advice.findings import Finding, Found


def one(kind, *rows, change=(), **fields):
    return Finding(kind, "m", rows, "a", "remove" if change else "look", tuple(change), **fields)


@pytest.fixture
def index():
    return samples.index(["a", "b"] * 60, ["train", "test"] * 60)


def test_ids_count_within_a_kind_and_images_are_described_once(index):
    found = {
        "outlier": Found((one("outlier", 3, change=(3,)), one("outlier", 4))),
        "label_error": Found((one("label_error", 3, confidence=0.123456),)),
        "drift": Found(reason="too few"),
    }
    told = findings.document(index, found)
    assert [row["id"] for row in told["findings"]] == ["label_error-1", "outlier-1", "outlier-2"]
    assert told["counts"] == {"outlier": 2, "label_error": 1, "drift": None}
    assert (told["not_searched"], told["not_listed"]) == ({"drift": "too few"}, {})
    assert told["samples"] == {
        "s" + f"{row:021d}": {"path": f"{label}/{row}.png", "label": label, "split": split}
        for row, label, split in [(3, "b", "test"), (4, "a", "train")]
    }
    assert told["findings"][1]["suggestion"] == {"action": "remove", "label": None, "samples": ["s" + f"{3:021d}"]}
    assert told["findings"][0]["confidence"] == 0.1235


def test_lists_are_cut_and_say_by_how_much(index, monkeypatch):
    monkeypatch.setattr(findings, "LISTED", 5)
    monkeypatch.setattr(findings, "SHOWN", 4)
    found = {
        "outlier": Found(tuple(one("outlier", row) for row in range(8))),
        "near_duplicate": Found((one("near_duplicate", *range(20)),)),
    }
    told = findings.document(index, found)
    assert told["counts"] == {"outlier": 8, "near_duplicate": 1}
    assert told["not_listed"] == {"outlier": 3}
    (group,) = [row for row in told["findings"] if row["kind"] == "near_duplicate"]
    assert (len(group["samples"]), group["num_samples"]) == (4, 20)
    monkeypatch.setattr(findings, "NAMED", 3)
    assert findings.document(index, found)["not_listed"] == {"outlier": 5, "near_duplicate": 1}


def test_every_kind_gets_pictures_in_turn():
    many = [one("label_error", row) for row in range(50)]
    copies = [one("near_duplicate", *range(100, 120)), one("near_duplicate", 0, 1)]
    chosen = thumbnails.choose([*many, *copies, one("small_class")], most=10)
    assert chosen == [0, 100, 101, 102, 103, 104, 105, 1, 2, 3]
    assert thumbnails.choose([one("small_class")]) == []
