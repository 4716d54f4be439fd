"""Why a candidate stands below one that is expected to reach less."""

import pytest

from worker.ranking import contradiction


def row(value, knn=0.8, ridge=0.8, prior=0.8, stage=2, name="x", weight=0.1):
    return {
        "backbone": name,
        "expected_accuracy": None if value is None else {"value": value},
        "stage": stage,
        "scores": {"knn_loo": knn, "ridge_loo": ridge, "centroid_loo": 0.5},
        "prior": {"expected": prior, "weight": weight},
    }


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"knn": 0.9, "ridge": 0.81}, "its nearest neighbours name fewer images right (0.800 against 0.900), which "
                                      "counts 0.45 in the score"),
        ({"knn": 0.81, "ridge": 0.9}, "ridge that learned from all other images names fewer right (0.800 "
                                      "against 0.900)"),
        ({"prior": 0.9, "weight": 0.5}, "the prior by ImageNet accuracy expects less of it (0.800 against 0.900)"),
        ({}, "it costs more, and all else is equal"),
    ],
)  # fmt: skip
def test_the_part_of_the_score_that_puts_it_lower_is_named(other, why):
    better = row(0.85, name="first", **other)
    said = contradiction.explained(row(0.9, weight=better["prior"]["weight"]), [better])
    assert said.startswith("a probe on it is expected to reach more than on first (0.900 against 0.850), but it stands")
    assert f"lower because {why}" in said


def test_without_neighbours_ridge_counts_for_all_of_the_images():
    said = contradiction.explained(row(0.9, knn=None), [row(0.85, knn=None, ridge=0.9)])
    assert said.endswith("(0.800 against 0.900), which counts 0.90 in the score")


def test_the_third_is_held_against_the_second_too():
    said = contradiction.explained(row(0.9), [row(0.95, name="first"), row(0.85, knn=0.9, name="second")])
    assert "more than on second" in said


def test_nothing_is_said_where_nothing_disagrees():
    assert contradiction.explained(row(0.9), []) == ""
    assert contradiction.explained(row(0.9), [row(0.95)]) == ""
    # Not to be seen in three digits.
    assert contradiction.explained(row(0.9003), [row(0.9001, knn=0.9)]) == ""
    # Learned from fewer images: no match.
    assert contradiction.explained(row(0.9, stage=1), [row(0.8, knn=0.9)]) == ""
    assert contradiction.explained(row(None), [row(None)]) == ""
