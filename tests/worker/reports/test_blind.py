"""One picture of each class to learn from: left out, its class is unknown, and no figure may stand on that."""

import pytest

from tests import factories
from tests.worker import nulls
from tests.worker.study_factories import SHADES, small_lab
from worker.contract.candidate import BLIND

# Of the leave-one-outs that were all wrong, under whatever name.
OF_SELECTION = ("val_accuracy", "selection_accuracy", "cv_accuracy_mean", "cv_accuracy_std")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with small_lab(tmp_path_factory.mktemp("home")) as found:
        found.store("ds_twos", factories.pictures(2, SHADES))
        yield found


@pytest.mark.parametrize("method", ["auto", "few_shot", "linear_probe"])
def test_nothing_that_is_shown_stands_on_a_blind_leave_one_out(lab, method):
    report = lab.transfer("ds_twos", method, report_mode="full")["report"]
    assert report["data"]["splits"] == {"train": 3, "val": 0, "test": 3}
    assert [report["metrics"][name] for name in OF_SELECTION] == [None] * 4
    assert [report["not_computed"][f"metrics.{name}"] for name in OF_SELECTION] == [BLIND] * 4
    assert report["curve"] is report["forecast"] is None
    assert BLIND in report["forecast_skipped"]
    assert {row["accuracy"] for row in report["details"].get("left_out", [])} <= {None}
    assert {row["accuracy"] for row in report["details"].get("strengths", [])} <= {None}
    scored = [row for row in report["decisions"] if row["score"] is not None and "features" not in row["step"]]
    assert scored == []
    assert "standard error" not in report["served"]["why"]
    assert "mean score" not in str(report["decisions"])
    assert nulls.unexplained({**report, "follow_up": {}}) == []


def test_what_auto_serves_says_that_nothing_was_measured(lab):
    report = lab.transfer("ds_twos", "auto")["report"]
    assert "none of which has a score" in report["served"]["why"]
    assert BLIND in report["served"]["why"]
