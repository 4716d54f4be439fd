"""A fine-tuning job keeps to its time: what is given up, in which order, and that it says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import JobFailure
from app.recipes import FineTune
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.evaluate import flags
from worker.methods import fine_tune, fine_tune_time
from worker.methods.task import Task

SHADES = {"rose": (190, 110, 120), "moss": (150, 150, 110), "mauve": (165, 120, 150)}


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[..., Task]:
    """Opens the job's next attempt: one store, a scratch folder of its own."""
    archive = tmp_path / "shades.zip"
    archive.write_bytes(factories.pack(factories.pictures(20, SHADES)))
    transfer_factories.store(transfer_factories.context(tmp_path, Wire(), "ingest"), archive)
    names = iter(f"attempt-{number}" for number in range(9))

    def make(wire: Wire) -> Task:
        return transfer_factories.task(
            transfer_factories.context(tmp_path, wire, next(names)), transfer_factories.cnn()
        )

    return make


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine may take longer for the features than the slack is."""
    monkeypatch.setattr(fine_tune_time, "SLACK_SECONDS", 1e6)


def steps(decisions) -> list[str]:
    assert all(one.outcome == "skipped" and one.reason for one in decisions)
    return [one.step for one in decisions]


def test_without_time_the_probe_is_served_and_nothing_is_gathered_for_a_training(attempt):
    wire = Wire()
    outcome = fine_tune.job(FineTune(epochs=1000, augment="default", max_minutes=1e-6), attempt(wire))
    found = outcome.candidate
    assert steps(outcome.decisions) == ["augmentation mirror", "training"]
    assert (found.shared, found.details["epochs"], found.details["pilots"]) == (True, 0, [])
    assert found.details["served"] == "the frozen backbone: no epoch ran"
    assert outcome.compared_by_seconds < 0
    stages = {message["progress"]["stage"] for message in wire.seen if "progress" in message}
    assert not any(stage.startswith("activations") for stage in stages)
    told = [event["data"]["step"] for event in wire.events("log") if event["data"].get("outcome") == "skipped"]
    assert told == steps(outcome.decisions)
    assert [flag["code"] for flag in flags.of_time(found.details, None)] == ["nothing_trained"]


def test_another_attempt_goes_on_with_what_was_begun(attempt):
    fine_tune.job(FineTune(epochs=1000, max_minutes=1e-6), attempt(Wire()))
    wire = Wire()
    found = fine_tune.job(FineTune(epochs=1000, max_minutes=60), attempt(wire)).candidate
    assert any(message.startswith("resumed from step") for message in wire.messages())
    assert (found.shared, found.details["epochs"]) == (True, 0)


@pytest.mark.parametrize(
    ("image_seconds", "given_up"),
    [(1e-3, []), (10.0, ["pilot of learning rate 0.0003"]), (30.0, ["augmentation mirror", "training"])],
)
def test_what_is_given_up_first(attempt, monkeypatch, image_seconds, given_up):
    """By forecasts at a pace that is set: 48 images to learn from or to choose by, 12 to score, twenty minutes."""
    monkeypatch.setattr(fine_tune_time, "_pace", lambda *_: image_seconds)
    outcome = fine_tune.job(FineTune(epochs=20, augment="default", max_minutes=20), attempt(Wire()))
    assert steps(outcome.decisions) == given_up
    details = outcome.candidate.details
    assert ("mirror" in details["augmentation"]["invariance"]) == ("augmentation mirror" not in given_up)
    assert (details["epochs"] > 0) == ("training" not in given_up)
    # Scoring twelve images is kept free in front of the limit; the networks from scratch end before it.
    assert outcome.compared_by_seconds == pytest.approx(1200 - 1 - 12 * image_seconds)


def test_gathering_that_takes_longer_than_its_forecast_is_left(attempt, monkeypatch):
    monkeypatch.setattr(fine_tune_time.Limit, "allows", lambda *_, **__: True)
    outcome = fine_tune.job(FineTune(epochs=4, augment="none", max_minutes=1e-6), attempt(Wire()))
    assert steps(outcome.decisions) == ["training"]
    assert "the time is over; 16 of" in outcome.decisions[0].reason
    assert (outcome.candidate.shared, outcome.candidate.details["epochs"]) == (True, 0)


def test_features_that_do_not_fit_fail_and_are_kept(attempt, monkeypatch):
    monkeypatch.setattr(fine_tune_time, "SLACK_SECONDS", -1e6)
    with pytest.raises(JobFailure, match=r"16 of 48 missing images .* raise max_minutes") as caught:
        fine_tune.job(FineTune(max_minutes=1), attempt(Wire()))
    assert caught.value.code == "timed_out"
