"""`auto` whose time does not hold the features of all images: it serves what an excerpt gives, and says so."""

import re
from dataclasses import replace

import numpy as np
import pytest

from app import recipes
from app.artifact import bundle, predicted
from app.errors import JobFailure
from tests import factories
from tests.worker import transfer_factories
from tests.worker.study_factories import Lab
from tests.worker.transfer_factories import Wire
from worker import transfer
from worker.attempt import machine, progress
from worker.attempt.progress import Reporter
from worker.contract import excerpt
from worker.forecasting import more_images
from worker.forecasting.forecast import forecast
from worker.methods.clock import Clock
from worker.prepare import sources
from worker.reports import lineage
from worker.studies import reproduction

SHADES = {"rose": (190, 110, 120), "moss": (150, 150, 110), "mauve": (165, 120, 150)}
FIRST = 3 * excerpt.CLASS_IMAGES + excerpt.FIRST_IMAGES


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    """Three shades, 144 images to learn from and 36 to score; forecasts as on a machine with nothing else to do."""
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)
    found = Lab(tmp_path)
    found.store("ds_many", factories.pictures(60, SHADES))
    return found


class Slow(Wire):
    """On its clock each batch of an extraction takes four seconds, and nothing else any."""

    def __init__(self, on_batch=None) -> None:
        super().__init__()
        self.late = 0.0
        self.on_batch = on_batch or (lambda number: None)

    def write(self, text: str) -> int:
        if '"stage":"features"' in text:
            self.late += 4.0
            self.on_batch(self.late / 4)
        return super().write(text)


@pytest.fixture
def run(lab, monkeypatch):
    """Runs `auto` on a slow clock; (what it would publish, its pipe)."""
    monkeypatch.setattr(progress, "MIN_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(Reporter, "elapsed_seconds", property(lambda self: getattr(self._out, "late", 0.0)))

    def start(seconds, wire=None, dataset="ds_many", recipe=(), **fields):
        wire = wire or Slow()
        recipe = {"method": "auto", "max_minutes": seconds / 60, **dict(recipe)}
        context = lab.context("transfer", dataset, recipe=recipe, **fields)
        return transfer.run(replace(context, reporter=Reporter(wire))), wire

    return start


def skipped(done):
    return {one["step"]: one["reason"] for one in done["report"]["decisions"] if one["outcome"] == "skipped"}


def flags(done):
    return {flag["code"]: flag["message"] for flag in done["report"]["flags"]}


def test_what_the_time_holds_is_learned_from_and_scored(lab, run):
    """All images take 48 s of the 12 that there are, and of the 37 at most; the first ones 20."""
    done, wire = run(12)
    report, splits = done["report"], done["report"]["data"]["splits"]
    assert sum(splits.values()) == FIRST
    assert 9 <= splits["test"] == done["metrics"]["num_test"] <= 17
    told = skipped(done)["features of all images"]
    assert re.search(rf"{splits['train'] + splits['val']} of 144 .* {splits['test']} of 36 test images", told)
    assert f"{144 - splits['train'] - splits['val']} of 144 were not learned from" in flags(done)["images_left_out"]
    assert any(message.startswith("features of all images: skipped") for message in wire.messages())
    assert report["served"]["method"] == "linear_probe"
    # Nothing of what is served waits for it.
    assert (report["forecast"], "forecast" in skipped(done)) == (None, True)
    (taught,) = lineage.of_version(lab.storage, done["prefix"], done["spec"]["files"])
    assert len(taught.sha256) == splits["train"] + splits["val"]
    cost = report["cost"]
    assert cost["images_cached"] + cost["images_extracted"] == splits["train"] + splits["val"]
    said = predicted.read(lab.storage.fetch(f"{done['prefix']}/{bundle.PREDICTIONS}"))
    assert len(said.ids) == splits["test"]
    # What was extracted is there for the next job, which has the time.
    whole, _ = run(40)
    assert whole["metrics"]["num_test"] == 36
    assert "images_left_out" not in flags(whole)
    cost = whole["report"]["cost"]
    assert (cost["images_cached"] + cost["images_extracted"], cost["images_cached"] > 0) == (144, True)


def test_a_stop_ends_with_what_there_is(lab, run):
    """Asked in the second round, whose first batch is the sixth; and a job has nothing before the first is over."""
    wire = Slow(lambda number: setattr(wire.reporter, "_request", "stop") if number == 6 else None)
    plain = Reporter.__init__

    def remember(self, out, **fields):
        plain(self, out, **fields)
        out.reporter = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "__init__", remember)
        done, _ = run(6000, wire)
    assert done["report"]["forecast"]["num_test"] == done["metrics"]["num_test"] < 36
    assert "asked to stop" in skipped(done)["features of all images"]
    assert flags(done)["images_left_out"].startswith("the job was asked to stop")


def test_a_first_round_that_is_left_ends_with_its_fewest(run):
    """22 images are two batches, 8 s; all 79 of the round would be 24 s more, and the limit with its slack is over."""
    wire = Slow(lambda number: setattr(wire, "late", 40.0) if number == 3 else None)
    done, _ = run(12, wire)
    assert sum(done["report"]["data"]["splits"].values()) == 3 * excerpt.LEAST_CLASS_IMAGES + excerpt.LEAST_SCORED
    assert done["metrics"]["num_test"] == excerpt.LEAST_SCORED


def test_without_time_for_the_fewest_it_says_what_they_need(run, monkeypatch):
    monkeypatch.setattr(Clock, "pace", lambda *_, **__: 10.0)
    with pytest.raises(JobFailure) as caught:
        run(12)
    assert caught.value.code == "timed_out"
    fewest = 3 * excerpt.LEAST_CLASS_IMAGES + excerpt.LEAST_SCORED
    assert f"{10 * fewest} s needed for the features of {fewest} images" in caught.value.message
    # The elapsed time and a second for the rest come on top; 25 s of it may be slack.
    wanted = float(re.search(r"set max_minutes to ([\d.]+) or more", caught.value.message)[1])
    assert 10 * fewest - 25 < 60 * wanted < 10 * fewest + 60


def test_a_source_and_a_dataset_without_labels_share_the_time(lab, run):
    lab.store("ds_bare", {f"{name.replace('/', '-')}": data
                          for name, data in factories.pictures(40, SHADES, first=600).items()})  # fmt: skip
    recipe = {"source": "ds_many"}
    done, _ = run(20, dataset="ds_bare", recipe=recipe, datasets={"source": "ds_many"})
    domain = done["report"]["domain"]
    assert FIRST <= domain["num_source"] < 144
    assert 64 <= domain["num_target"] < 120
    # Nothing of it is a test split.
    left = {"source": 144 - domain["num_source"], "dataset": 120 - domain["num_target"]}
    told = f"{left['source']} of 144 of the source and {left['dataset']} of 120 of the dataset were not looked at"
    assert told in flags(done)["images_left_out"]
    assert "test split" not in flags(done)["images_left_out"]
    assert re.search(
        r"time holds \d+ of 120 images to learn from \(\d+%\); the others", skipped(done)["features of all images"]
    )
    # There is no time to adapt: the dataset has taught nothing.
    assert done["report"]["served"]["what"] == "source_only"
    taught = lineage.of_version(lab.storage, done["prefix"], done["spec"]["files"])
    assert {one.id: len(one.sha256) for one in taught} == {"ds_many": domain["num_source"]}
    # Carried out again it looks at the same images all the same.
    original = {"prefix": done["prefix"], "model": "m", "version": 1}
    given = {
        "recipe": {"method": "auto", **recipe},
        "datasets": {"source": "ds_many"},
        "inputs": {"original": original},
    }
    context = lab.context("evaluate", "ds_bare", **given)
    task, _ = transfer.plan(context, recipes.parse(context.document.recipe), full=False)
    recorded = reproduction._recorded(context, task, *reproduction._published(context, original))
    assert (len(recorded.source), len(recorded.pool)) == (domain["num_source"], domain["num_target"])


def test_a_forecast_that_does_not_fit_is_left_out_and_says_so(lab, run, monkeypatch):
    """There is time for all images, and not for a network from scratch."""
    monkeypatch.setattr("worker.forecasting.forecast.seconds", lambda *_: 1e6)
    done, wire = run(64)
    report = done["report"]
    assert (report["forecast"], report["curve"], done["metrics"]["forecast_accuracy"]) == (None, None, None)
    assert "does not fit" in skipped(done)["forecast"]
    assert report["not_computed"]["forecast"] == report["not_computed"]["curve"] == report["forecast_skipped"]
    assert "1000000.0 s, which does not fit" in report["forecast_skipped"]
    order = [(one["step"], one["outcome"]) for one in report["decisions"]]
    tried = [number for number, (_, outcome) in enumerate(order) if outcome == "tried"]
    assert tried
    assert order.index(("forecast", "skipped")) == tried[0] - 1, order
    assert any(message.startswith("forecast: skipped") for message in wire.messages())
    # Where nobody waits it is made.
    assert lab.transfer("ds_many", "linear_probe")["report"]["forecast"] is not None


def test_classes_that_there_is_no_time_to_ask_are_not_asked():
    generator = np.random.default_rng(0)
    labels_N = np.arange(300) % 3
    feats_ND = np.eye(3)[labels_N] @ generator.normal(size=(3, 60)) + 5.0 * generator.normal(size=(300, 60))
    given = (feats_ND, labels_N, np.arange(300), 3, 0, 50)
    # Of the halves that classes grow in, the time holds all, the first, none.
    whole = forecast(*given, advise=True)
    part = forecast(*given, advise=True, is_over=iter([False, *[True] * 9]).__next__)
    none = forecast(*given, advise=True, is_over=lambda: True)
    assert whole.expected == part.expected == none.expected
    assert [one.reason for one in whole.more_images] == [one.reason for one in part.more_images] == [None] * 3
    assert whole.more_images != part.more_images
    assert [(one.gain_points, one.reason) for one in none.more_images] == [(None, more_images.NO_TIME)] * 3
