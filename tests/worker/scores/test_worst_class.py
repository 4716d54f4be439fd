import pytest
from scipy.stats import binomtest

from worker.scores.metrics import ClassScores
from worker.scores.worst_class import wilson, worst_class


def row(name, recall, size):
    return ClassScores(name=name, num_samples=size, precision=0.5, recall=recall, f1=0.5)


@pytest.mark.parametrize(("hits", "size"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (50, 200)])
def test_interval_is_scipys(hits: int, size: int) -> None:
    expected = binomtest(hits, size).proportion_ci(method="wilson")
    assert wilson(hits, size) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_lowest_recall_and_of_equals_the_surest() -> None:
    found = worst_class([row("a", 0.5, 4), row("b", 0.25, 4), row("c", 0.25, 8), row("none", None, 0)])
    assert found is not None
    assert (found.label, found.recall, found.num_samples) == ("c", 0.25, 8)
    assert found.low < 0.25 < found.high


def test_no_class_with_an_item_is_no_worst_class() -> None:
    assert worst_class([row("a", None, 0)]) is None
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)
