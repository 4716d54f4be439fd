"""Small, uneven and confused classes, on counts that can be worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from worker.advice import classes


def test_small_classes_say_how_many_are_missing():
    labels = np.repeat([0, 1, 2], [25, 19, 3])
    found = classes.small(labels, ("a", "b", "c", "d"), np.arange(100, 147)).findings
    assert [(one.label, one.data) for one in found] == [
        ("c", {"count": 3, "missing": 17}), ("b", {"count": 19, "missing": 1}),
    ]  # fmt: skip
    # Whoever reads it sees the images that there are.
    assert [one.rows for one in found] == [(144, 145, 146), tuple(range(125, 144))]


@pytest.mark.parametrize(("counts", "number"), [([100, 10, 0], 0), ([101, 10, 50], 1)])
def test_uneven_classes(counts, number):
    found = classes.imbalanced(np.array(counts), ("a", "b", "c")).findings
    assert len(found) == number
    assert all((one.label, one.data["largest"]) == ("b", "a") for one in found)


def test_the_bound_is_wilsons():
    for hits, trials in [(5, 20), (1, 7), (30, 31)]:
        low = classes.lower_bound(np.array([hits]), np.array([trials]))[0]
        assert low == pytest.approx(binomtest(hits, trials).proportion_ci(0.95, "wilson").low, rel=1e-6)


def test_confused_pairs_are_named_with_the_images_that_show_it():
    labels = np.repeat([0, 1, 2], 40)
    said = labels.copy()
    said[:12], said[40:50] = 1, 0  # of the first two classes many; of the third one
    said[80] = 0
    rows = np.arange(120) + 500
    (found,) = classes.confused(said, labels, ("a", "b", "c"), rows).findings
    assert (found.label, found.new_label, found.action) == ("a", "b", "look")
    assert found.data["counts"] == [12, 10]
    assert found.data["share"] == pytest.approx(22 / 80)
    assert set(found.rows) == {*range(500, 512), *range(540, 550)}


def test_a_few_confusions_are_no_finding():
    labels = np.repeat([0, 1], 10)
    said = labels.copy()
    said[:4] = 1
    assert classes.confused(said, labels, ("a", "b"), np.arange(20)).findings == ()
