"""`auto` on the demo's images and two starter backbones, heads alone; its trainings are in test_tuned.py."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import recipes
from app.errors import JobFailure
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.attempt import machine
from worker.attempt.progress import Reporter
from worker.auto import search, steps
from worker.backbones import features
from worker.prepare import sources

DEMO = Path(__file__).parents[3] / "examples" / "data" / "emoji.zip"
LITE0, MOBILENET = "timm/tf_efficientnet_lite0", "torchvision/mobilenet_v2"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home with the demo's images stored; features are extracted by whichever test comes first."""
    folder = tmp_path_factory.mktemp("home")
    context = transfer_factories.context(folder, Wire(), "ingest")
    transfer_factories.store(context, DEMO)
    return folder


@pytest.fixture(autouse=True)
def _only_heads(monkeypatch) -> None:
    """The trainings of the table would take minutes on the demo's images; forecasts are those of a machine at rest."""
    monkeypatch.setattr(steps, "TUNED", ())
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)


def task(home, name, wire=None, backbones=(LITE0,), request=None):
    context = transfer_factories.context(home, wire or Wire(), name)
    context.reporter._request = request
    opened = tuple(sources.open_backbone(context, name) for name in backbones)
    return replace(transfer_factories.task(context, opened[0]), backbones=opened)


def outcomes(outcome, step):
    return [one.outcome for one in outcome.decisions if one.step == step]


def test_nothing_that_chooses_ever_sees_a_test_item(home):
    given = task(home, "unseen")
    test = given.index.rows_of("test")
    outcome = search.run(recipes.Auto(max_minutes=2), given)
    for candidate in (outcome.candidate, outcome.frozen):
        assert not np.isin(candidate.selection.rows, test).any()
    assert not np.isin(outcome.candidate.judged.rows, test).any()
    poisoned = np.array(given.labels_N)
    poisoned[test] = np.random.default_rng(0).permutation(poisoned[test])
    again = search.run(recipes.Auto(max_minutes=2), replace(given, labels_N=poisoned))
    assert again.candidate.head.graph() == outcome.candidate.head.graph()
    assert [(one.step, one.score) for one in again.decisions] == [(one.step, one.score) for one in outcome.decisions]


def test_every_decision_is_an_event_with_numbers_and_a_reason(home):
    wire = Wire()
    outcome = search.run(recipes.Auto(max_minutes=2), task(home, "told", wire))
    logged = [event["data"] for event in wire.events("log") if "outcome" in event["data"]]
    assert [event["step"] for event in logged] == [decision.step for decision in outcome.decisions]
    assert all(decision.reason for decision in outcome.decisions)
    tried = {one.step: one for one in outcome.decisions if one.outcome == "tried"}
    assert tried.keys() == {f"linear_probe on {LITE0}", f"few_shot on {LITE0}"}
    for one in tried.values():
        assert one.low <= one.score <= one.high
        assert one.seconds >= 0
        assert one.forecast_seconds > 0
    assert outcomes(outcome, f"features of {LITE0}") == ["done"]
    kept = [one.step for one in outcome.decisions if one.outcome == "kept"]
    assert len(kept) == 1
    served = outcome.decisions[-1]
    assert (served.step, served.outcome) == ("served", "served")
    assert served.reason.startswith(kept[0])


def test_backbones_and_heads_are_chosen_together_by_the_one_standard_error_rule(home):
    wire = Wire()
    outcome = search.run(recipes.Auto(max_minutes=600), task(home, "candidates", wire, backbones=(LITE0, MOBILENET)))
    # Features of either: what was told before they began stands in the decision, too.
    told = [event["data"] for event in wire.events("log") if "starts, expected" in event["message"]]
    for one in outcome.decisions:
        if one.step.startswith("features of"):
            assert {"step": one.step, "forecast_seconds": one.forecast_seconds} in told
    tried = [decision.step for decision in outcome.decisions if decision.outcome == "tried"]
    heads = ("linear_probe", "few_shot")
    # The cheaper backbone first.
    assert tried == [f"{head} on {name}" for name in (MOBILENET, LITE0) for head in heads]
    kept = [one.step for one in outcome.decisions if one.outcome == "kept"]
    assert len(kept) == 1
    assert kept[0].endswith(f" on {outcome.candidate.backbone.name}")
    assert outcome.frozen.backbone.name == outcome.candidate.backbone.name
    assert outcome.frozen.method == "linear_probe"
    # The verdict's predictions are of all that was learned from, and by what each half alone would have taken.
    assert len(outcome.candidate.judged.rows) == len(outcome.candidate.selection.rows)


def test_macro_f1_is_what_is_scored_when_it_is_what_is_wanted(home):
    outcome = search.run(recipes.Auto(max_minutes=2, objective="macro_f1"), task(home, "f1"))
    assert all("macro f1" in one.reason for one in outcome.decisions if one.outcome == "tried")


def test_what_cannot_fit_is_said_at_once(home, monkeypatch):
    given = task(home, "short")
    monkeypatch.setattr(Reporter, "elapsed_seconds", property(lambda _: 3600.0))
    with pytest.raises(JobFailure, match=r"3600 s over, .*set max_minutes to 59\.\d+ or more") as caught:
        search.run(recipes.Auto(max_minutes=1), given)
    assert caught.value.code == "timed_out"


def test_a_job_that_is_asked_to_stop_serves_what_it_has(home):
    given = task(home, "stop", backbones=(LITE0, MOBILENET))
    cheaper = next(one for one in given.backbones if one.name == MOBILENET)
    features.pooled(given.context, given.index, np.arange(len(given.index)), cheaper, ("features", 0.0, 0.1))
    given.context.reporter._request = "stop"
    outcome = search.run(recipes.Auto(max_minutes=5), given)
    assert outcome.candidate.backbone.name == MOBILENET
    skipped = {one.step: one.reason for one in outcome.decisions if one.outcome == "skipped"}
    assert skipped.keys() == {f"few_shot on {MOBILENET}", f"features of {LITE0}"}
    assert set(skipped.values()) == {"the job was asked to stop"}


class Watched(Wire):
    """Calls back when a second backbone's features are under way."""

    def __init__(self, first, react):
        super().__init__()
        self.first, self.react, self.seen_first = first, react, False

    def write(self, text):
        if f"few_shot on {self.first}: tried" in text:
            self.seen_first = True
        elif self.seen_first and '"stage":"features"' in text:
            self.react()
        return super().write(text)


def cold(folder, wire):
    """Half of the demo's images in a home without a feature."""
    context = transfer_factories.context(folder, Wire(), "ingest")
    with zipfile.ZipFile(DEMO) as archive:
        half = {name: archive.read(name) for name in sorted(archive.namelist())[::2] if name.endswith(".png")}
    (folder / "half.zip").write_bytes(factories.pack(half))
    transfer_factories.store(context, folder / "half.zip")
    return task(folder, "cold", wire, backbones=(LITE0, MOBILENET))


def test_a_stop_is_heard_within_an_extraction_and_what_was_extracted_is_kept(tmp_path):
    wire = Watched(MOBILENET, lambda: setattr(given.context.reporter, "_request", "stop"))
    given = cold(tmp_path, wire)
    outcome = search.run(recipes.Auto(max_minutes=30), given)
    assert outcome.candidate.backbone.name == MOBILENET
    left = next(one for one in outcome.decisions if one.step == f"features of {LITE0}")
    assert left.outcome == "skipped"
    assert left.reason.startswith("the job was asked to stop; ")
    assert "missing images were extracted, and are kept" in left.reason
    lite0 = next(one for one in given.backbones if one.name == LITE0)
    assert 0 < features.num_missing(given.context, given.index, given.pool, lite0) < len(given.pool)
    # What follows reads features as ever.
    assert len(outcome.candidate.features(given.index.rows_of("test")))


def test_time_that_is_over_ends_an_extraction_that_took_longer_than_its_forecast(tmp_path, monkeypatch):
    late = []
    given = cold(tmp_path, Watched(MOBILENET, lambda: late.append(3600.0)))
    plain = Reporter.elapsed_seconds.fget
    monkeypatch.setattr(Reporter, "elapsed_seconds", property(lambda self: plain(self) + sum(late)))
    outcome = search.run(recipes.Auto(max_minutes=30), given)
    left = next(one for one in outcome.decisions if one.step == f"features of {LITE0}")
    assert left.outcome == "skipped"
    assert left.reason.startswith("the time is over; ")
    assert outcome.candidate.backbone.name == MOBILENET


def test_a_first_extraction_far_beyond_the_time_serves_what_its_first_round_holds(tmp_path, monkeypatch):
    class Slow(Wire):
        def write(self, text):
            late.extend([3600.0] * ('"stage":"features"' in text))
            return super().write(text)

    late = []
    given = cold(tmp_path, Slow())
    plain = Reporter.elapsed_seconds.fget
    monkeypatch.setattr(Reporter, "elapsed_seconds", property(lambda self: plain(self) + sum(late)))
    outcome = search.run(recipes.Auto(max_minutes=30), given)
    assert late, "expected the clock to have run during the first extraction"
    assert outcome.excerpt is not None
    assert 2 * given.num_classes <= len(outcome.excerpt.pool) < len(given.pool)
    missing = features.num_missing(given.context, given.index, given.pool, outcome.candidate.backbone)
    assert missing <= len(given.pool) - len(outcome.excerpt.pool), "what was timed is kept, too"
    other = next(one for one in given.backbones if one is not outcome.candidate.backbone)
    assert features.num_missing(given.context, given.index, given.pool, other) == len(given.pool), "nothing was timed"
    left = next(one for one in outcome.decisions if one.step == f"features of {other.name}")
    assert (left.outcome, left.forecast_seconds) == ("skipped", None)
    assert left.reason == "the time is over; 0.0 s are left, and 1.0 s must follow"
