"""When a job foretells, what it tells, and how the report holds it against what was found."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.worker.transfer_factories import Wire
from worker.attempt.progress import Reporter
from worker.forecasting.forecast import Expected
from worker.forecasting.labels_needed import ACCURACIES
from worker.reports import foresight
from worker.reports.foresight import Foresight


def task(wire, num=120, digest="a"):
    """As much of a task as a forecast looks at: three classes that can be told apart."""
    labels_N = np.arange(num) % 3
    return SimpleNamespace(
        context=SimpleNamespace(reporter=Reporter(wire)),
        backbone=SimpleNamespace(digest=digest, name="timm/tiny"),
        pool=np.arange(num),
        labels_N=labels_N,
        groups_N=np.arange(num),
        num_classes=3,
        class_names=("red", "green", "blue"),
        seed=0,
    )


def feats(one):
    chance = np.random.default_rng(0)
    return (chance.normal(size=(len(one.pool), 8)) + 1.3 * np.eye(8)[one.labels_N]).astype(np.float32)


def candidate(digest="a", shared=True):
    return SimpleNamespace(
        backbone=SimpleNamespace(digest=digest, name="timm/tiny"), method="linear_probe", shared=shared
    )


def test_each_backbone_is_foretold_once_and_told_at_once():
    wire = Wire()
    told = Foresight(40, advise=True, unit=False)
    for digest in ("a", "b", "a"):
        one = task(wire, digest=digest)
        told(one, feats(one))
    events = [event for event in wire.events("log") if "forecast_accuracy" in event["data"]]
    assert len(events) == 2
    assert wire.events("metric") == []
    made = told.of(candidate())
    expected = made.expected
    assert events[0]["message"] == (
        f"forecast: test accuracy {expected.value:.2f} ({expected.low:.2f} to {expected.high:.2f}) expected"
    )
    assert events[0]["data"] == {**foresight.flat(made), "backbone": "timm/tiny"}
    assert told.of(candidate("c")) is None


@pytest.mark.parametrize(("num_test", "groups"), [(0, 120), (40, 1)])
def test_where_there_is_nothing_to_foretell_the_method_goes_on(num_test, groups):
    wire = Wire()
    told = Foresight(num_test, advise=False, unit=False)
    one = task(wire)
    one.groups_N = np.arange(120) % groups
    told(one, feats(one))
    assert told.of(candidate()) is None
    assert wire.seen == []


def test_the_section_holds_what_was_found_against_what_was_told():
    wire = Wire()
    told = Foresight(40, advise=True, unit=False)
    one = task(wire)
    told(one, feats(one))
    made = replace(told.of(candidate()), expected=Expected(0.8, 0.7, 0.9))
    for found, inside in ((0.7, True), (0.9, True), (0.6, False), (0.95, False)):
        section = foresight.sections(made, found, candidate(), one.class_names)["forecast"]
        assert section["inside"] is inside
        assert section["error"] == pytest.approx(found - 0.8)
    assert {row["label"] for row in section["more_images"]} == {"red", "green", "blue"}
    assert [row["accuracy"] for row in section["labels_needed"]] == list(ACCURACIES)
    assert section["labels_needed_skipped"] is None
    further = [row["sentence"] for row in section["labels_needed"] if row["outcome"] == "foretold"]
    assert [message for message in wire.messages() if " needs about " in message] == [
        f"forecast: accuracy {sentence}" for sentence in further[:1]
    ]
    assert "training the network may lead beyond it" not in section["what"]
    trained = foresight.sections(made, 0.8, candidate(shared=False), one.class_names)["forecast"]
    assert "training the network may lead beyond it" in trained["what"]


def test_what_cannot_be_told_is_null_with_the_reason():
    assert foresight.sections(None, 0.8, candidate(), ("red",))["forecast"] is None
    assert set(foresight.flat(None).values()) == {None}
    wire = Wire()
    told = Foresight(40, advise=False, unit=False)
    one = task(wire, num=12)
    told(one, feats(one), 1000)
    made = told.of(candidate())
    assert made.expected is None
    section = foresight.sections(made, 0.8, candidate(), one.class_names)
    assert section == {"forecast": None, "forecast_skipped": made.untold}
    assert wire.messages() == [f"forecast: none, {made.untold}"]
