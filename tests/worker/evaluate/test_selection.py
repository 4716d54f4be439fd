import numpy as np
import pytest

from worker.evaluate.selection import Candidate, one_standard_error


def scores(num_right: int, num_items: int = 100) -> np.ndarray:
    return np.arange(num_items) < num_right


def test_cheaper_candidate_within_one_standard_error_is_chosen() -> None:
    found = one_standard_error([Candidate("full", 60.0, scores(81)), Candidate("probe", 2.0, scores(80))])
    assert (found.index, found.best_index) == (1, 0)
    assert found.reasons[1].standard_error == pytest.approx(0.01)
    assert found.reasons[1].behind == pytest.approx(0.01)
    assert "chosen" in found.reasons[1].text
    assert "probe is cheaper" in found.reasons[0].text


def test_clearly_better_candidate_is_chosen_at_its_price() -> None:
    found = one_standard_error([Candidate("probe", 2.0, scores(70)), Candidate("full", 60.0, scores(80))])
    assert found.index == 1
    reason = found.reasons[0]
    difference = scores(80).astype(float) - scores(70)
    assert reason.standard_error == pytest.approx(difference.std(ddof=1) / 10)
    assert not reason.within_one_error
    assert "worse by more than one standard error" in reason.text


def test_the_error_is_that_of_the_paired_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.6
    worse = base & (rng.random(400) < 0.97)
    found = one_standard_error([Candidate("a", 1.0, worse), Candidate("b", 2.0, base)])
    unpaired = base.std() / np.sqrt(400)
    assert found.reasons[0].behind < unpaired
    assert found.index == 1


def test_ties_go_to_the_cheaper_then_to_the_first() -> None:
    same = scores(50)
    found = one_standard_error([Candidate("a", 3.0, same), Candidate("b", 1.0, same), Candidate("c", 1.0, same)])
    assert found.index == 1
    assert one_standard_error([Candidate("only", 1.0, np.array([0.5]))]).index == 0


def test_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        one_standard_error([Candidate("a", 1.0, scores(1, 5)), Candidate("b", 1.0, scores(1, 6))])
    with pytest.raises(ValueError, match="same items"):
        one_standard_error([])
