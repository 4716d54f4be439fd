"""The worst group: which folders are groups, and which of them counts."""

import numpy as np

from worker.evaluate import groups


def test_groups_are_folders_that_are_no_class() -> None:
    paths = ["all/cat/night/1.png", "all/dog/day/2.png", "all/cat/3.png", "all/night/dog/4.png"]
    assert groups.names(paths, ["cat", "dog", "cat", "dog"]) == ["night", "day", "", "night"]
    assert groups.names(["up/cat/1.png", "up/dog/2.png"], ["cat", "dog"]) == ["", ""]
    assert groups.names(["1.png", "2.png"], ["cat", "dog"]) == ["", ""]
    # Of one folder alone nothing can be worse.
    assert groups.names(["night/1.png", "night/2.png"], ["cat", "dog"]) == ["", ""]


def test_the_lowest_of_those_with_enough_items_counts() -> None:
    sizes = {"day": (20, 18), "night": (10, 4), "fog": (9, 0)}
    paths = [f"cat/{name}/{number}.png" for name, (size, _) in sizes.items() for number in range(size)]
    correct = np.array([number < right for size, right in sizes.values() for number in range(size)])
    found = groups.worst_group(paths, ["cat"] * len(paths), correct)
    assert found is not None
    assert (found["group"], found["accuracy"], found["num_samples"], found["num_groups"]) == ("night", 0.4, 10, 2)
    assert 0.1 < found["low"] < 0.4 < found["high"] < 0.75


def test_without_two_groups_there_is_none() -> None:
    paths = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(20)]
    assert groups.worst_group(paths, ["cat"] * 20 + ["dog"] * 20, np.ones(40, bool)) is None
