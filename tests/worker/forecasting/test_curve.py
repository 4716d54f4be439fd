"""What the report says of the learning curve."""

from dataclasses import replace

import numpy as np
import pytest

from worker.contract.candidate import Selection
from worker.contract.outcome import Scratch
from worker.forecasting import curve
from worker.forecasting.draws import Point
from worker.forecasting.forecast import Expected, Forecast


def made(accuracies=(0.4, 0.6, 0.8), sizes=(10, 40, 160), reason=None):
    points = tuple(
        Point(size, (accuracy, accuracy), 100, float(size)) for size, accuracy in zip(sizes, accuracies, strict=True)
    )
    fit = None if reason else {"a": 1.0, "b": 0.5, "b_low": 0.2, "b_high": 0.9, "c": 0.1}
    return Forecast(Expected(0.8, 0.7, 0.9), 50, 160, 160, points, fit, reason, (), None, None)


def scratch(num_right, num_all=100, hurried=None):
    """A network from scratch that has so many of its hold-out right; every label is 0."""
    logits = np.zeros((num_all, 2))
    logits[:num_right, 0] = logits[num_right:, 1] = 1.0
    selection = Selection(np.arange(num_all), logits, "hold-out of 20 %")
    return Scratch("small CNN", selection, lambda rows: np.zeros((len(rows), 2)), 1.0, 160, hurried=hurried)


LABELS = np.zeros(100, np.int64)


def test_area_is_the_mean_accuracy_over_doublings():
    assert curve.aulc([10, 20, 40], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert curve.aulc([10, 40], [0.4, 0.8]) == pytest.approx(0.6)
    sizes, accuracies = [3, 17, 100, 1000], [0.2, 0.5, 0.6, 0.9]
    grid = np.linspace(np.log2(3), np.log2(1000), 200_001)
    dense = np.interp(grid, np.log2(sizes), accuracies).mean()
    assert curve.aulc(sizes, accuracies) == pytest.approx(dense, abs=1e-4)
    assert curve.aulc([10], [0.4]) is None


def test_size_at_an_accuracy_lies_between_points_on_the_logarithm():
    assert curve.size_at([10, 40], [0.4, 0.8], 0.6) == pytest.approx(20)
    assert curve.size_at([10, 40], [0.4, 0.8], 0.4) == 10
    assert curve.size_at([10, 40], [0.4, 0.8], 0.8) == pytest.approx(40)
    assert curve.size_at([10, 20, 40], [0.6, 0.5, 0.8], 0.6) == 10
    assert curve.size_at([10, 40], [0.4, 0.8], 0.9) is None
    assert curve.size_at([10, 40], [0.4, 0.8], 0.3) is None


def test_multiplier_is_what_scratch_needs_for_each_label_of_the_transfer():
    found = curve.document(made(), scratch(70), LABELS)
    assert found["label_multiplier"] == pytest.approx(160 / 80)
    assert found["label_multiplier_low"] < 2 < found["label_multiplier_high"]
    assert found["reasons"] == {}
    assert [point["num_samples"] for point in found["points"]] == [10, 40, 160]


@pytest.mark.parametrize(
    ("num_right", "reason"), [(20, "10 images give the transfer more"), (95, "the transfer stays below")]
)
def test_curves_that_do_not_meet_have_no_multiplier_and_say_why(num_right, reason):
    found = curve.document(made(), scratch(num_right), LABELS)
    assert found["label_multiplier"] is None
    assert reason in found["reasons"]["label_multiplier"]


def test_a_network_that_its_time_ended_early_is_worth_no_number_of_labels():
    found = curve.document(made(), scratch(70, hurried="it had time for 1.4 epochs"), LABELS)
    assert [found[name] for name in curve.MULTIPLIER] == [None] * 3
    assert [found["reasons"][name] for name in curve.MULTIPLIER] == ["it had time for 1.4 epochs"] * 3


def test_points_that_rise_by_chance_alone_are_worth_no_number_of_labels():
    flat = curve.document(
        made((0.80, 0.79, 0.81), reason="it rises by 0.01, which chance alone gives"), scratch(80), LABELS
    )
    assert [flat[name] for name in curve.MULTIPLIER] == [None] * 3
    assert "chance alone" in flat["reasons"]["label_multiplier"]


def test_a_network_that_is_no_baseline_is_there_and_says_why_it_is_worth_nothing():
    found = curve.document(made(), replace(scratch(70), unfair="it names no more than the largest class"), LABELS)
    assert found["label_multiplier"] is None
    assert found["reasons"]["label_multiplier"] == "it names no more than the largest class"


def test_a_bound_outside_the_curve_is_null():
    found = curve.document(made(), scratch(79), LABELS)
    assert found["label_multiplier"] is not None
    assert found["label_multiplier_low"] is None  # the transfer's curve does not come so high
    assert found["reasons"].keys() == {"label_multiplier_low"}
    assert "outside the transfer's curve (0.400 to 0.800)" in found["reasons"]["label_multiplier_low"]


def test_without_scratch_and_without_a_fit_both_reasons_are_given():
    found = curve.document(made(reason="flat"), None, LABELS)
    assert found["fit"] is None
    assert found["labels_needed"] is None
    assert found["reasons"] == {
        "fit": "flat",
        "labels_needed": "flat",
        **dict.fromkeys(curve.MULTIPLIER, curve.NO_SCRATCH),
    }
