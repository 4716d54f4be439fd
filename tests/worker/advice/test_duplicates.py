"""Copies: across splits, within one, of unlike labels; chains of copies; and pictures that only look alike to one."""

import numpy as np
import pytest

from tests.worker.advice import samples
from worker.advice import duplicates

BASE = 0x0F0F_1234_5678_9ABC


def features(num, seed=0):
    return np.random.default_rng(seed).normal(size=(num, 40)).astype(np.float32)


def test_a_leaked_test_item_is_found_and_its_copies_outside_are_removed():
    index = samples.index(["a", "a", "b", "a", "b"], ["train", "test", "train", "val", "test"],
                          [BASE, BASE ^ 0b11, 77, BASE ^ 0b100, 99])  # fmt: skip
    feats = features(5)
    feats[1], feats[3] = feats[0] * 1.01, feats[0] * 3
    (found,) = duplicates.find(index, feats, samples.alike).findings
    assert found.rows[0] == 1
    assert sorted(found.rows) == [0, 1, 3]
    assert (found.action, sorted(found.change)) == ("remove", [0, 3])
    assert found.data["across_test"]
    assert found.data["splits"] == ["test", "val", "train"]
    assert "the test score counts" in found.message
    assert found.confidence == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("bits", "alike", "number"), [(0b1111, True, 1), (0b11111, True, 0), (0b1, False, 0)])
def test_both_the_eye_and_the_backbone_must_agree(bits, alike, number):
    index = samples.index(["a", "a", "b"], ["train"] * 3, [BASE, BASE ^ bits, 99])
    feats = features(3)
    if alike:
        feats[1] = feats[0]
    assert len(duplicates.find(index, feats, samples.alike).findings) == number


def test_pictures_that_agree_are_copies_whatever_the_features_say():
    index = samples.index(["a", "a", "b"], ["test", "train", "train"], [BASE, BASE ^ 0b11, BASE ^ 0b101])
    (found,) = duplicates.find(index, features(3), samples.pictures([1, 1, 2])).findings
    assert (found.rows, found.change, found.confidence) == ((0, 1), (1,), 1.0)
    assert not found.data["same_bytes"]


def test_pictures_that_are_plainly_different_are_none_whatever_the_features_say():
    index = samples.index(["a", "a"], ["test", "train"], [BASE, BASE ^ 0b11])
    assert duplicates.find(index, np.tile(features(1), (2, 1)), samples.pictures([1, 2])).findings == ()


def test_equal_bytes_are_copies_even_where_there_is_nothing_to_see():
    digests = ["1" * 64, "1" * 64, "2" * 64]
    index = samples.index(["a", "a", "b"], ["train", "val", "train"], [0, 0, 0], digests)
    feats = np.zeros((3, 4), np.float32)
    (found,) = duplicates.find(index, feats, samples.alike).findings
    assert (found.rows, found.change, found.confidence) == ((1, 0), (0,), 1.0)
    assert "the same bytes" in found.message
    assert (found.data["across_splits"], found.data["across_test"]) == (True, False)


def test_what_is_removed_is_a_copy_of_what_stays_and_no_copy_of_a_copy():
    hashes = [BASE, BASE ^ 0b111, BASE ^ 0b111111]  # neighbours are three bits apart, the ends six
    index = samples.index(["a"] * 3, ["train"] * 3, hashes)
    assert len(set(index.group.tolist())) == 1
    feats = np.tile(features(1), (3, 1))
    (found,) = duplicates.find(index, feats, samples.alike).findings
    assert (found.rows, found.change) == ((0, 1), (1,))


def test_every_test_image_is_compared_with_everything():
    """The second test image is a copy of the first, and the training image only one of the second."""
    hashes = [BASE, BASE ^ 0b111, BASE ^ 0b111111]
    index = samples.index(["a"] * 3, ["test", "test", "train"], hashes)
    (found,) = duplicates.find(index, np.tile(features(1), (3, 1)), samples.alike).findings
    assert (found.rows, found.change) == ((0, 1, 2), (2,))


def test_copies_under_two_labels_are_looked_at_unless_they_leak():
    index = samples.index(["a", "b", "a", "b"], ["train", "train", "test", "train"], [BASE, BASE, 5, 5])
    feats = features(4)
    feats[1], feats[3] = feats[0], feats[2]
    leak, inside = duplicates.find(index, feats, samples.alike).findings
    assert (leak.rows, leak.action, leak.change) == ((2, 3), "remove", (3,))
    assert (inside.rows, inside.action, inside.change) == ((0, 1), "look", ())
    assert "different labels: 'a', 'b'" in leak.message
    assert "different labels: 'a', 'b'" in inside.message


def test_plain_data_has_none():
    num = 500
    index = samples.index(["a", "b"] * (num // 2), ["train"] * num)
    assert duplicates.find(index, features(num), samples.alike).findings == ()


def test_injected_copies_are_all_found():
    rng = np.random.default_rng(3)
    num, copies = 300, 30
    hashes = rng.integers(1, 2**63, num, dtype=np.uint64)
    feats = features(num)
    splits = rng.choice(["train", "val", "test"], num, p=[0.7, 0.1, 0.2]).tolist()
    sources = rng.choice(num, copies, replace=False)
    both = samples.index(
        ["a"] * (num + copies), splits + ["train"] * copies, np.concatenate([hashes, hashes[sources] ^ np.uint64(5)])
    )
    found = duplicates.find(
        both, np.concatenate([feats, feats[sources] + 0.01 * features(copies, 9)]), samples.alike
    ).findings
    assert {frozenset(one.rows) for one in found} == {
        frozenset((int(source), num + place)) for place, source in enumerate(sources)
    }
    assert sum(one.data["across_test"] for one in found) == sum(splits[source] == "test" for source in sources)


def test_more_copies_than_one_finding_names(monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_CHANGE", 3)
    index = samples.index(["a"] * 8, ["train"] * 8, [BASE] * 8)
    (found,) = duplicates.find(index, np.tile(features(1), (8, 1)), samples.alike).findings
    assert len(found.rows) == 8
    assert len(found.change) == 3
    assert "7 are too many for one finding" in found.message
