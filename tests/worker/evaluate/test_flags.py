import numpy as np
import pytest

from worker.evaluate import flags

NAMES = ("cats", "dogs")


def no_better(correct, labels):
    return flags.no_better(np.array(correct, bool), np.array(labels), NAMES, "test split")


def test_a_model_that_names_the_largest_class_is_flagged() -> None:
    labels = [0] * 70 + [1] * 30
    found = no_better([label == 0 for label in labels], labels)
    assert found is not None
    assert found["code"] == "not_better_than_largest_class"
    assert "0.700 against 0.700 for always 'cats'" in found["message"]


def test_a_gain_that_may_be_chance_is_flagged_and_a_clear_one_is_not() -> None:
    labels = [0] * 70 + [1] * 30
    slight = [label == 0 or place < 73 for place, label in enumerate(labels)]
    clear = [label == 0 or place < 95 for place, label in enumerate(labels)]
    assert no_better(slight, labels) is not None
    assert no_better(clear, labels) is None


def test_few_items_flag_only_what_is_no_better_in_them() -> None:
    labels = [0, 0, 1, 1, 1]
    assert no_better([True] * 5, labels) is None
    assert no_better([True, False, True, True, False], labels) is not None


@pytest.mark.parametrize("seed", range(20))
def test_guesses_are_flagged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, guesses = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    assert no_better(labels == guesses, labels) is not None


def evidence(verdict):
    return {"verdict": verdict, "difference": -0.1, "low": -0.2, "high": -0.05, "num_samples": 40, "what": "hold-out"}


def test_negative_transfer_is_said_once_for_each_baseline() -> None:
    row = evidence("negative")
    found = flags.negative({"vs_frozen": row, "vs_scratch": None, "vs_source_only": row})
    assert [flag["code"] for flag in found] == ["negative_transfer"]
    assert "against frozen" in found[0]["message"]
    assert flags.negative({"vs_frozen": evidence("none"), "vs_scratch": evidence("positive")}) == []


def leakage(num_test, copies=0, alike=0, chained=0, without=0.5):
    return {
        "num_test": num_test, "num_exact": 0, "num_phash": alike, "num_copies": copies, "num_through_backbone": chained,
        "accuracy_with": 0.7, "accuracy_without": 0.3, "accuracy_without_copies": without,
    }  # fmt: skip


def test_too_little_time_is_flagged() -> None:
    assert flags.of_time({"epochs": 3, "ended": "all epochs"}, None) == flags.of_time({}, None) == []
    (found,) = flags.of_time({"epochs": 0, "ended": "no time left"}, None)
    assert found["code"] == "nothing_trained"
    assert "(no time left)" in found["message"]
    assert flags.of_time({}, "it had 1.4 epochs") == [{"code": "scratch_cut_short", "message": "it had 1.4 epochs"}]


def test_a_test_split_that_was_seen_or_is_small_is_flagged() -> None:
    assert [flag["code"] for flag in flags.of_test(leakage(29))] == ["few_test_images"]
    assert flags.of_test(leakage(100, copies=4)) == []
    (found,) = flags.of_test(leakage(100, copies=5))
    assert found["code"] == "test_images_seen"
    assert "5 of 100" in found["message"]
    assert "accuracy is 0.700, without them it is 0.500" in found["message"]
    (found,) = flags.of_test(leakage(40, copies=40, without=None))
    assert "no image is without one" in found["message"]


def test_what_only_looks_alike_is_no_fact() -> None:
    assert flags.of_test(leakage(1000, alike=87)) == []


def test_what_a_backbone_had_learned_before_is_flagged_from_the_first_item_on() -> None:
    (found,) = flags.of_test(leakage(100, copies=1, chained=1))
    assert "1 of them before this job, by its backbone" in found["message"]
    assert "another backbone" in found["message"]
    assert flags.of_test(None) == []
