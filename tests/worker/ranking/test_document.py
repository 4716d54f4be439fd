"""Words of a ranking's document."""

from worker.ranking.document import _expected_above


def row(value, stage=2):
    return {"expected_accuracy": {"value": value}, "stage": stage}


def test_a_lower_place_with_a_higher_expected_accuracy_says_which_number_decides():
    assert _expected_above(row(0.895), []) == ""
    assert _expected_above(row(0.891), [row(0.895)]) == ""
    # Learned from fewer images: no match.
    assert _expected_above(row(0.906, stage=1), [row(0.895)]) == ""
    said = _expected_above(row(0.906), [row(0.895), row(0.99)])
    assert said.startswith(
        "; its expected_accuracy is above that of the first (0.906 against 0.895), which decides nothing"
    )
