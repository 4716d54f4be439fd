"""Adaptation from a stored source to a stored target, on a small backbone with random weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import recipes
from app.artifact import bundle, predicted
from app.errors import JobFailure
from app.pages.report import render
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import nulls, transfer_factories
from tests.worker.transfer_factories import Wire
from worker import transfer
from worker.attempt import machine
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter, Yielded
from worker.backbones import networks
from worker.backbones.export import FromPixels
from worker.contract.network_head import NetworkHead
from worker.domains import training, two_domains
from worker.evaluate.supplement import NO_LABELS
from worker.fine_tuning import forward
from worker.methods import adapt, adapt_candidates, clock
from worker.prepare import sources

SOURCE, TARGET, BARE, FEW = "ds_source", "ds_target", "ds_bare", "ds_few"
# The same classes in another light.
DIM = {"red": (120, 20, 60), "green": (30, 110, 80), "blue": (20, 30, 150)}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Three stored datasets; features are extracted by whichever test comes first."""
    folder = tmp_path_factory.mktemp("home")
    dim = factories.pictures(14, DIM, first=500)
    sets = {SOURCE: factories.pictures(16), TARGET: dim, BARE: {name.partition("/")[2]: dim[name] for name in dim}}
    sets[BARE] = {f"{place}.png": data for place, data in enumerate(dim.values())}
    sets[FEW] = dict(list(sets[BARE].items())[:9])
    return transfer_factories.stored(folder, sets, unlabelled=[BARE])


def described(name) -> DatasetDocument:
    return DatasetDocument(
        id=name, prefix=f"datasets/default/{name}", task="classification", digest="d" * 64, seed=0, classes=[],
        splits={"train": 1},
    )  # fmt: skip


def attempt(home, name, wire, target=TARGET, job=None, **fields) -> RunContext:
    document = JobDocument(
        id=job or f"job_{name}", project="default", attempt=1, kind="transfer", seed=0, report_mode="fast",
        recipe={"method": "adapt", "source": SOURCE, **fields}, model_name="m", backbone="small", user_backbones=[],
        dataset=described(target), datasets={"source": described(SOURCE)}, inputs={},
    )  # fmt: skip
    scratch = home / name
    scratch.mkdir()
    settings = Settings(home=home, compute_threads=COMPUTE_THREADS)
    return RunContext(settings, FolderStorage(home / "storage"), Reporter(wire), document, scratch, "cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    """Jobs of this file stand on one small backbone, and train for a tenth of the steps: how good is none of them.

    Forecasts are those of a machine at rest.
    """
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)
    monkeypatch.setattr(training, "STEPS", 150)
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))


def prepared(home, name, wire=None, change=lambda target: target, **fields):
    """Recipe, task and truth of a job."""
    context = attempt(home, name, wire or Wire(), **fields)
    recipe = recipes.parse(context.document.recipe)
    assert isinstance(recipe, recipes.Adapt)
    source = transfer.load(context, context.document.datasets["source"])
    target = change(transfer.load(context, context.document.dataset))
    return recipe, *two_domains.make_task(context, recipe, source, target)


def test_a_job_leaves_a_bundle_and_an_honest_report(home):
    wire = Wire()
    context = attempt(home, "whole", wire, candidates=["z_score", "mcc", "batch_norm"])
    done = transfer.run(context)
    report, metrics = done["report"], done["metrics"]
    tried = {one["name"]: one for one in report["domain"]["candidates"]}
    assert list(tried) == ["source_only", "z_score", "batch_norm", "mcc"]
    served = next(one for one in tried.values() if one["served"])
    assert served["name"] == report["served"]["what"]
    assert metrics["test_accuracy"] == served["oracle_accuracy"]
    assert metrics["source_only_accuracy"] == tried["source_only"]["oracle_accuracy"]
    assert metrics["domain_distance"] == report["domain"]["before"]["proxy_a"]
    assert report["baselines"]["source_only"]["value"] == metrics["source_only_accuracy"]
    assert metrics["num_test"] == report["data"]["images_scored"] == 42
    assert report["data"]["transductive"]
    assert report["verdict"] == report["verdicts"]["vs_source_only"]
    rows = predicted.read(context.storage.fetch(f"{done['prefix']}/{bundle.PREDICTIONS}"))
    right = [label == predicted for label, predicted in zip(rows.labels, rows.predicted, strict=True)]
    assert np.mean(right) == pytest.approx(metrics["test_accuracy"])
    alone = rows.baselines.get("source_only", rows.predicted)
    right = [label == predicted for label, predicted in zip(rows.labels, alone, strict=True)]
    assert np.mean(right) == pytest.approx(metrics["source_only_accuracy"])
    assert set(rows.baselines) == (set() if served["name"] == "source_only" else {"source_only"})
    told = report["estimate"]
    assert told["value"] == served["estimated_accuracy"]
    assert told["found"] == metrics["test_accuracy"]
    assert told["error"] == pytest.approx(told["value"] - told["found"])
    assert told["num_items"] == 42
    assert told["known_accuracy"] == pytest.approx(served["source_accuracy"])
    assert told["low"] <= told["value"] <= told["high"]
    assert not done["spec"]["calibrated"]
    assert done["spec"]["labels"] == ["blue", "green", "red"]
    steps = [event["data"]["step"] for event in wire.events("log") if "outcome" in event["data"]]
    assert steps == [decision["step"] for decision in report["decisions"]]


def test_labels_of_the_target_change_nothing_that_is_served(home):
    def poisoned(target):
        column = target.columns[0]
        wrong = np.random.default_rng(0).permutation(column.values)
        return replace(target, columns=(replace(column, values=wrong),))

    fields = {"candidates": ["z_score", "coral"]}
    recipe, task, truth = prepared(home, "clean", **fields)
    recipe, bad_task, bad_truth = prepared(home, "poison", change=poisoned, **fields)
    assert not np.array_equal(truth.labels_N, bad_truth.labels_N)
    assert (task.labels_N == -1).all()
    assert not task.index.classes
    assert (task.index.label == -1).all()
    outcome, bad = adapt.run(recipe, task), adapt.run(recipe, bad_task)
    assert outcome.candidate.name == bad.candidate.name
    assert outcome.candidate.head.graph() == bad.candidate.head.graph()
    assert [one.scores for one in outcome.adaptation.tried] == [one.scores for one in bad.adaptation.tried]


def test_a_job_that_takes_over_trains_nothing_again(home):
    class Leaving(Wire):
        def write(self, text):
            if '"dann"' in text and '"tried"' in text:
                context.reporter._request = "yield"
            return super().write(text)

    wire, candidates = Leaving(), ["dann", "mdd"]
    recipe, task, _ = prepared(home, "first", wire, job="job_shared", candidates=candidates)
    context = task.context
    with pytest.raises(Yielded):
        adapt.run(recipe, task)
    again = Wire()
    recipe, task, _ = prepared(home, "second", again, job="job_shared", candidates=candidates)
    resumed = adapt.run(recipe, task)
    assert [text for text in again.messages() if "resumed from step 3" in text]
    recipe, task, _ = prepared(home, "alone", candidates=candidates)
    whole = adapt.run(recipe, task)
    assert resumed.candidate.head.graph() == whole.candidate.head.graph()
    for one, other in zip(resumed.adaptation.tried, whole.adaptation.tried, strict=True):
        assert one.scores == other.scores
        assert one.candidate.head.graph() == other.candidate.head.graph()
    assert isinstance(whole.adaptation.tried[1].candidate.head, NetworkHead)


def test_a_job_that_is_asked_to_stop_serves_what_it_has(home):
    recipe, task, _ = prepared(home, "stopped")
    task.context.reporter._request = "stop"
    outcome = adapt.run(recipe, task)
    assert outcome.candidate.name == "source_only"
    skipped = [decision.step for decision in outcome.decisions if decision.outcome == "skipped"]
    assert skipped == list(adapt_candidates.ALL[1:])


def test_what_does_not_fit_the_time_is_skipped_and_said(home):
    recipe, task, _ = prepared(home, "short", max_minutes=0.01)
    outcome = adapt.run(recipe, task)
    skipped = {one.step: one.reason for one in outcome.decisions if one.outcome == "skipped"}
    assert skipped.keys() >= {"batch_norm", "mcc", "dann", "dann_mcc", "mdd"}
    assert all("does not fit" in reason or reason == "the time is over" for reason in skipped.values())
    assert outcome.decisions[-1].outcome == "served"


# Hardly any time, since a fast machine is through with the first candidate within some hundredths of a second.
@pytest.mark.parametrize(("seconds", "why"), [(1e-6, "the time is over"), (12.0, "its forecast of")])
def test_nothing_is_timed_for_a_candidate_that_cannot_fit_anyhow(home, monkeypatch, seconds, why):
    def timed(*_, **__):
        raise AssertionError("images were timed")

    monkeypatch.setattr(clock, "seconds_per_image", timed)
    recipe, task, _ = prepared(home, f"late-{seconds}", candidates=["batch_norm"], max_minutes=seconds / 60)
    outcome = adapt.run(recipe, task, clock.Clock(task, seconds))
    (skipped,) = (one for one in outcome.decisions if one.step == "batch_norm")
    assert skipped.outcome == "skipped"
    assert skipped.reason.startswith(why)
    assert "-" not in skipped.reason


def test_an_image_is_timed_once_and_what_a_clock_knows_is_not_timed_again(home, monkeypatch):
    recipe, task, _ = prepared(home, "known", wire := Wire(), candidates=["batch_norm"])
    timed, measure = [], clock.seconds_per_image
    monkeypatch.setattr(clock, "seconds_per_image", lambda *given: timed.append(given) or measure(*given))
    adapt._features(task)
    found = adapt.run(recipe, task)
    assert len(timed) == 1
    adapt.run(recipe, task, known := clock.Clock(task, 600.0))
    adapt.run(recipe, task, known)
    assert len(timed) == 2
    row = next(one for one in found.decisions if one.step == "source_only")
    told = [event["data"] for event in wire.events("log") if "source_only: starts" in event["message"]]
    assert {"step": "source_only", "forecast_seconds": row.forecast_seconds} in told
    assert row.forecast_seconds > 0


def test_a_target_of_a_few_images_is_refused_with_what_to_do(home):
    with pytest.raises(JobFailure, match="at least 10 images of the target, to know it by; found 9") as caught:
        transfer.run(attempt(home, "few", Wire(), target=FEW))
    assert caught.value.code == "dataset_invalid"


def test_a_target_without_labels_is_served_and_not_scored(home):
    done = transfer.run(attempt(home, "bare", Wire(), target=BARE, candidates=["z_score"]))
    metrics, report = done["metrics"], done["report"]
    assert metrics["test_accuracy"] is metrics["source_only_accuracy"] is None
    assert 0.5 < metrics["source_val_accuracy"] <= 1.0
    assert report["verdict"] is report["gain"] is report["baselines"]["source_only"] is None
    page = render(report, "job_bare")
    if report["served"]["what"] != "source_only":
        assert report["not_computed"]["verdict"] == report["not_computed"]["gain"] == NO_LABELS
        assert f"nothing to compare it on: {NO_LABELS}" in page
    assert "an adaptation is compared with the source alone)" not in page
    assert all(one["oracle_accuracy"] is None for one in report["domain"]["candidates"])
    # Nobody has measured it, and the estimate says what it is.
    assert report["estimate"]["found"] is report["estimate"]["error"] is None
    assert "no label was read" in report["estimate"]["warning"]
    assert "Estimated accuracy" in page
    assert json.loads(json.dumps(report)) == report
    assert nulls.unexplained(report) == []
    assert done["spec"]["labels"] == ["blue", "green", "red"]


def test_labels_of_the_target_that_may_be_learned_from_are_scored_on_its_test_split(home):
    done = transfer.run(attempt(home, "labels", Wire(), target_labels=True))
    report = done["report"]
    assert report["data"]["target_labels_used"]
    assert not report["data"]["transductive"]
    evidence = report["verdict_evidence"]["vs_source_only"]
    assert evidence["num_samples"] == report["data"]["images_fitted_to"]
    scores = {one["name"]: one["target_accuracy"] for one in report["domain"]["candidates"]}
    assert {"source_only", "target_only"} < scores.keys()
    assert report["served"]["what"] == "source_only" or scores[report["served"]["what"]] == max(scores.values())
    assert report["data"]["images_scored"] + report["data"]["images_fitted_to"] == 42
    assert report["domain"]["after"] is None
    assert nulls.unexplained(report) == []


def test_a_transformer_has_no_batch_norm_to_estimate(home, monkeypatch):
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.transformer(),))
    # Not even its forecast fits: what the network lacks is told all the same.
    recipe, task, _ = prepared(home, "vit", candidates=["batch_norm"], max_minutes=1e-3)
    outcome = adapt.run(recipe, task)
    skipped = next(decision for decision in outcome.decisions if decision.step == "batch_norm")
    assert skipped.outcome == "skipped"
    assert "no batch norm" in skipped.reason


def test_the_weights_behind_batch_norm_of_the_target_are_kept(home, tmp_path):
    recipe, task, _ = prepared(home, "state", candidates=["batch_norm"])
    outcome = adapt.run(recipe, task)
    assert outcome.adaptation is not None
    found = next(one.candidate for one in outcome.adaptation.tried if one.candidate.name == "batch_norm")
    assert found.state is not None
    found.state(tmp_path / "state.safetensors")
    network = networks.restore(task.backbone)
    frozen = forward.by_row(task, task.pool, task.backbone.preprocess, runner(network, task))
    network.network.load_state_dict(networks.read_state(tmp_path / "state.safetensors"), strict=True)
    loaded = forward.by_row(task, task.pool, task.backbone.preprocess, runner(network, task))
    np.testing.assert_allclose(loaded, found.features(task.pool), atol=1e-4)
    assert np.abs(loaded - frozen).max() > 1e-2


def runner(network, task):
    trunk = FromPixels(network, task.backbone.preprocess)
    return lambda images: forward.run(trunk, images)
