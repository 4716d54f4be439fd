"""A fine-tuning job keeps to its time: what is given up, in which order, and that it says so."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.recipes import FineTune
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.attempt import machine
from worker.backbones.extraction import Extraction
from worker.contract.task import Task
from worker.evaluate import flags, sections
from worker.fine_tuning import pilots
from worker.fine_tuning.workbench import Workbench
from worker.methods import fine_tune, fine_tune_time, reference
from worker.methods.clock import Clock
from worker.methods.fine_tune_time import Limit
from worker.training import loop

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
def at_rest(monkeypatch) -> None:
    """Forecasts in seconds as on a machine that has nothing else to do."""
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)


def steps(decisions) -> list[str]:
    assert all(one.outcome == "skipped" and one.reason for one in decisions)
    return [one.step for one in decisions]


def test_without_time_the_probe_is_served_and_nothing_is_gathered_for_a_training(attempt):
    wire = Wire()
    outcome = fine_tune.job(FineTune(epochs=1000, augment="default", max_minutes=1e-6), attempt(wire))
    found = outcome.candidate
    assert steps(outcome.decisions) == ["training"]
    assert (found.shared, found.details["epochs"]) == (True, 0)
    assert found.details["served"] == "the frozen backbone: no time left"
    # It is the frozen baseline, too, and learned from all that may be learned from: one fit, not two.
    assert outcome.frozen is found
    assert len(found.selection.rows) == 48
    assert outcome.compared_by_seconds < 0
    stages = {message["progress"]["stage"] for message in wire.seen if "progress" in message}
    assert not any(stage.startswith("activations") for stage in stages)
    told = [event["data"]["step"] for event in wire.events("log") if event["data"].get("outcome") == "skipped"]
    assert told == steps(outcome.decisions)
    assert [flag["code"] for flag in flags.of_time(found.details, None)] == ["nothing_trained"]


def test_another_attempt_goes_on_with_what_was_begun_and_counts_its_time(attempt):
    recipe = FineTune(epochs=2, augment="none", max_minutes=600)
    begun = fine_tune.job(recipe, attempt(Wire())).candidate
    wire = Wire()
    outcome = fine_tune.job(recipe, attempt(wire))
    assert any(message.startswith("resumed from step") for message in wire.messages())
    assert outcome.candidate.details["curve"] == begun.details["curve"]
    # A second is kept for scoring; the first attempt's time, training and all before it, is spent.
    assert outcome.compared_by_seconds < 36_000 - 1 - begun.details["training_seconds"]


# Nothing that two networks from scratch would have to wait for is given up before their own time is.
TAKEN = "baseline from scratch: its time is the training's"


@pytest.mark.parametrize(
    ("image_seconds", "is_shared", "given_up"),
    [
        (1e-3, True, []),
        (2.0, True, []),
        (10.0, False, ["pilot of learning rate 0.0003"]),
        (30.0, False, ["training"]),
    ],
)
def test_what_is_given_up_first(attempt, monkeypatch, image_seconds, is_shared, given_up):
    """By forecasts at a pace that is set: 48 images to learn from or to choose by, 12 to score, twenty minutes."""
    monkeypatch.setattr(Clock, "pace", lambda *_: image_seconds)
    wire = Wire()
    outcome = fine_tune.job(FineTune(epochs=20, augment="default", max_minutes=20), attempt(wire))
    assert steps(outcome.decisions) == given_up
    assert any(message.startswith(TAKEN) for message in wire.messages()) != is_shared
    details = outcome.candidate.details
    assert (details["epochs"] > 0) == ("training" not in given_up)
    assert ("augmentation" in details) == ("training" not in given_up)
    # Scoring twelve images is kept free in front of the limit; the networks from scratch end before it.
    assert outcome.compared_by_seconds == pytest.approx(1200 - 1 - 12 * image_seconds)
    assert outcome.excerpt is None


@pytest.mark.parametrize("num_cached", [0, 60])
def test_a_training_that_takes_all_its_time_leaves_as_much_for_each_network_from_scratch(
    attempt, monkeypatch, num_cached
):
    task = attempt(Wire())
    monkeypatch.setattr(Clock, "pace", lambda *_: 1.0)
    limit = Limit(task, 20, "last_stage")
    limit.plan(task, task.backbone, Extraction(num_cached, 60 - num_cached, 60.0 - num_cached), 0.4, 1.0, 5)
    # What it took in the end, as a network from scratch is given it: features that were cached counted in.
    took = limit.left_seconds + task.context.reporter.elapsed_seconds + fine_tune_time.EXPORT_SECONDS["last_stage"]
    assert took > 300
    assert took + reference.forecast_scratch(took + num_cached * 1.0) < limit.compared_by_seconds


def test_a_step_that_was_timed_decides_whether_the_whole_network_is_trained(attempt, monkeypatch):
    monkeypatch.setattr(pilots, "step_seconds", lambda *_: 1e4)
    outcome = fine_tune.job(FineTune(scope="ssf", epochs=2, augment="none", max_minutes=20), attempt(Wire()))
    assert steps(outcome.decisions) == ["training"]
    assert (outcome.candidate.shared, outcome.candidate.details["epochs"]) == (True, 0)


def test_at_another_resolution_the_probe_has_its_graph_without_any_time(attempt):
    recipe = FineTune(scope="norm", resolution=96, augment="none", max_minutes=1e-6)
    found = fine_tune.job(recipe, attempt(Wire())).candidate
    assert (found.shared, found.details["epochs"], found.backbone.preprocess.height) == (False, 0, 96)
    assert found.details["served"] == "the frozen backbone: no epoch ran"
    told = sections.mapping(found)
    assert told["frozen"] == told["mapped"] > 0
    assert (told["trained"], {row["what"] for row in told["tensors"]}) == (
        found.head.num_params,
        {"frozen", "new", "measured"},
    )
    new = [row["shape"] for row in told["tensors"] if row["what"] == "new"]
    assert told["new"] == sum(math.prod(shape) for shape in new)


@pytest.mark.parametrize(("scope", "left"), [("last_stage", "16 of"), ("norm", "16 of .* images were decoded")])
def test_gathering_that_takes_longer_than_its_forecast_is_left(attempt, monkeypatch, scope, left):
    monkeypatch.setattr(Limit, "allows_seconds", lambda *_, **__: True)
    recipe = FineTune(scope=scope, epochs=4, augment="none", max_minutes=1e-6)
    outcome = fine_tune.job(recipe, attempt(Wire()))
    assert steps(outcome.decisions) == ["training"]
    assert (outcome.candidate.shared, outcome.candidate.details["epochs"]) == (True, 0)
    assert re.search(left, outcome.decisions[0].reason)


def test_an_epoch_is_left_in_the_middle_and_what_it_learned_takes_part(attempt, monkeypatch):
    """The time is over with the second step of an epoch."""
    taken = []
    step, train_by = loop._step, Workbench.train_by.fget

    def counted(*given):
        taken.append(1)
        return step(*given)

    monkeypatch.setattr(loop, "_step", counted)
    monkeypatch.setattr(Workbench, "train_by", property(lambda self: 0.0 if len(taken) >= 2 else train_by(self)))
    recipe = FineTune(scope="norm", epochs=50, augment="none", max_minutes=600)
    found = fine_tune.job(recipe, attempt(Wire())).candidate
    assert (found.details["steps"], found.details["epochs"], found.details["ended"]) == (2, 1, "no time left")
