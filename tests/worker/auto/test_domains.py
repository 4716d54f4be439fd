"""`auto` with a source or unlabelled images beside its dataset, as whole jobs on a small backbone of random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from app import recipes
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import nulls, transfer_factories
from tests.worker.transfer_factories import Wire
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.auto import domains, search, steps
from worker.auto.budget import Budget
from worker.methods import adapt
from worker.prepare import sources
from worker.reports.report import OF_SOURCE

SOURCE, TARGET, BARE, TWO, MORE, FAR = "ds_source", "ds_target", "ds_bare", "ds_two", "ds_more", "ds_far"
# The same classes in another light.
DIM = {"red": (120, 20, 60), "green": (30, 110, 80), "blue": (20, 30, 150)}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Stored datasets; features are extracted by whichever test comes first."""
    folder = tmp_path_factory.mktemp("home")
    dim = factories.pictures(10, DIM, first=500)
    sets = {SOURCE: factories.pictures(12), TARGET: dim, MORE: factories.pictures(20, DIM, first=900)}
    sets[FAR] = factories.pictures(20, {"white": (250, 250, 250), "paper": (240, 240, 240)})
    sets[BARE] = {f"{place}.png": data for place, data in enumerate(dim.values())}
    sets[TWO] = {name: data for name, data in dim.items() if "red" not in name}
    return transfer_factories.stored(folder, sets, unlabelled=[BARE])


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    """Jobs of this file stand on one small backbone, and train a closed form of adaptation at most."""
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))
    monkeypatch.setattr(steps, "TUNED", ())
    monkeypatch.setattr(adapt, "ALL", ("source_only", "z_score", "coral"))


def attempt(home, name, wire=None, target=TARGET, request=None, minutes=5.0, project="default", **roles) -> RunContext:
    def described(dataset):
        return DatasetDocument(
            id=dataset, prefix=f"datasets/default/{dataset}", task="classification", digest="d" * 64, seed=0,
            classes=[], splits={"train": 1},
        )  # fmt: skip

    recipe = {"method": "auto", "max_minutes": minutes, **roles}
    document = JobDocument(
        id=f"job_{name}", project=project, attempt=1, kind="transfer", seed=0, report_mode="fast", recipe=recipe,
        model_name="m", backbone="small", user_backbones=[], dataset=described(target), inputs={},
        datasets={role: described(dataset) for role, dataset in roles.items()},
    )  # fmt: skip
    (home / name).mkdir()
    settings = Settings(home=home, compute_threads=COMPUTE_THREADS)
    reporter = Reporter(wire or Wire())
    reporter._request = request
    return RunContext(settings, FolderStorage(home / "storage"), reporter, document, home / name, "cpu")


def transferred(context):
    """A whole job, in whose report nothing is null without a reason."""
    done = transfer.run(context)
    assert nulls.unexplained(done["report"]) == []
    return done


def by_step(report):
    return {decision["step"]: decision for decision in report["decisions"]}


def told_before(wire, row):
    """Forecasts of a step that were told before its decision."""
    place = next(k for k, event in enumerate(wire.events("log")) if event["data"] == row)
    before = [event["data"] for event in wire.events("log")[:place] if "starts, expected" in event["message"]]
    return [event["forecast_seconds"] for event in before if event["step"] == row["step"]]


def test_labels_of_each_class_are_learned_from_with_the_source_and_without(home):
    wire = Wire()
    done = transferred(attempt(home, "labels", wire, source=SOURCE))
    report, metrics = done["report"], done["metrics"]
    tried = [one["step"] for one in report["decisions"] if one["outcome"] == "tried"]
    assert "source_only" in tried
    assert "target_only" in tried
    assert any(step.startswith("source_and_target") for step in tried)
    assert any(step.startswith("linear_probe on") for step in tried)
    logged = [event["data"]["step"] for event in wire.events("log") if "outcome" in event["data"]]
    assert logged == [decision["step"] for decision in report["decisions"]]
    for one in report["decisions"]:
        if one["outcome"] == "tried":
            assert one["low"] <= one["score"] <= one["high"], one
            # Told before it began, and the same number afterwards.
            assert told_before(wire, one) == [one["forecast_seconds"]], one
    joint = by_step(report)[domains.JOINT]
    assert (joint["outcome"], told_before(wire, joint)) == ("done", [joint["forecast_seconds"]])
    assert joint["seconds"] >= max(
        one["seconds"] for one in report["decisions"] if one["step"].startswith("source_and") and one["seconds"]
    )
    # One row alone names what came out of all choices.
    kept = [one["step"] for one in report["decisions"] if one["outcome"] == "kept"]
    assert len(kept) == 1
    assert report["served"]["why"].startswith(kept[0])
    leading = [one["step"] for one in report["decisions"] if one["outcome"] == "leads"]
    assert len(leading) == 2
    assert leading[-1] == kept[0]
    # Scored on the target's test split alone, against the source as it is and against the target's own probe.
    assert metrics["num_test"] == report["baselines"]["source_only"]["num_samples"]
    assert metrics["num_test"] == report["baselines"]["frozen"]["num_samples"] == 30 - 24
    # The verdict is over what the question is about: the source alone where an adaptation is served, else scratch.
    of = "vs_source_only" if report["served"]["method"] == "adapt" else "vs_scratch"
    assert report["verdict"] == report["verdicts"][of]
    if report["served"]["what"] == "source_only":
        assert "unchanged" in report["not_computed"]["verdicts.vs_source_only"]
    else:
        assert report["verdicts"]["vs_source_only"] in ("positive", "none", "negative")
    assert report["domain"]["before"]["proxy_a"] > 0
    assert done["spec"]["labels"] == ["blue", "green", "red"]
    assert json.loads(json.dumps(report)) == report
    # What is foretold is what the dataset's own labels give.
    assert report["forecast"]["num_images"] == 24
    assert report["curve"]["points"] == report["forecast"]["curve"]
    assert report["forecast_skipped"] is None


def test_a_source_that_there_is_no_time_for_is_not_passed_over(home, monkeypatch):
    monkeypatch.setattr(Budget, "joint", lambda *_: 3600.0)
    report = transferred(attempt(home, "late", source=SOURCE))["report"]
    assert report["domain"] is report["baselines"]["source_only"] is None
    why = by_step(report)[domains.JOINT]["reason"]
    assert "does not fit: 3 x 3600." in why
    assert [report["not_computed"][name] for name in OF_SOURCE] == [why] * 3


def searched(home, name, **roles):
    """What `auto` finds, without a report."""
    context = attempt(home, name, minutes=10.0, **roles)
    recipe = recipes.parse(context.document.recipe)
    task, _ = transfer.plan(context, recipe, full=True)
    return task, search.run(recipe, task)


def test_one_choice_is_made_of_all_heads_and_judged_apart(home):
    task, outcome = searched(home, "judged", source=SOURCE)
    assert outcome.candidate.judged.rows.tolist() == task.pool.tolist()
    assert outcome.adaptation.source_only.name == "source_only"
    assert [one.outcome for one in outcome.decisions].count("served") == 1


def test_a_dataset_without_labels_is_adapted_to_and_not_scored(home):
    wire = Wire()
    done = transferred(attempt(home, "bare", wire, target=BARE, source=SOURCE))
    report = done["report"]
    logged = [event["data"]["step"] for event in wire.events("log") if "outcome" in event["data"]]
    assert logged == [decision["step"] for decision in report["decisions"]]
    assert [one["name"] for one in report["domain"]["candidates"]] == ["source_only", "z_score", "coral"]
    assert sum(one["served"] for one in report["domain"]["candidates"]) == 1
    assert report["verdict"] is done["metrics"]["test_accuracy"] is None
    decisions = by_step(report)
    assert decisions[domains.LABELS]["outcome"] == "skipped"
    assert any(step.endswith("(source)") for step in decisions)
    assert [one["outcome"] for one in report["decisions"]].count("served") == 1
    assert done["spec"]["labels"] == ["blue", "green", "red"]


def test_features_of_a_dataset_without_labels_are_a_step_and_are_counted(home):
    """In a project that has no features yet, and again in it."""
    name = f"features of {transfer_factories.cnn().name}"
    wire = Wire()
    report = transferred(attempt(home, "fresh", wire, target=BARE, project="fresh", source=SOURCE))["report"]
    own, source = by_step(report)[name], by_step(report)[f"{name} (source)"]
    for row in (own, source):
        assert (row["outcome"], told_before(wire, row)) == ("done", [row["forecast_seconds"]])
    assert min(own["forecast_seconds"], own["seconds"]) > 0
    domain, cost = report["domain"], report["cost"]
    # Those that were extracted to time them, too.
    assert (cost["images_cached"], cost["images_extracted"]) == (0, domain["num_source"] + domain["num_target"])
    assert cost["extraction_seconds"] == pytest.approx(own["seconds"] + source["seconds"], abs=0.02)
    assert cost["images_per_second"] > 0
    assert "cost.images_per_second" not in report["not_computed"]
    assert [one["outcome"] for one in report["decisions"]].count("kept") == 1
    again = transferred(attempt(home, "fresh-again", target=BARE, project="fresh", source=SOURCE))["report"]
    assert again["cost"]["images_extracted"] == 0
    assert by_step(again)[name]["forecast_seconds"] == 0.0
    assert "cached" in again["not_computed"]["cost.images_per_second"]


def test_labels_of_some_classes_score_and_change_nothing(home):
    done = transferred(attempt(home, "two", target=TWO, source=SOURCE))
    assert done["metrics"]["num_test"] == 20
    assert by_step(done["report"])[domains.LABELS]["reason"].startswith("not each class has one")
    assert done["report"]["verdict"] == done["report"]["verdicts"]["vs_source_only"]


def test_more_images_without_labels_are_measured_against_the_dataset(home):
    found = {}
    for name in (MORE, FAR):
        _, outcome = searched(home, f"more-{name}", unlabelled=name)
        decisions = {one.step: one for one in outcome.decisions}
        measured = decisions[f"distance of {domains.UNLABELLED}"]
        assert min(measured.seconds, measured.forecast_seconds) > 0
        found[name] = measured.score, measured.reason, domains.LAYERS in decisions
        assert decisions[domains.UNLABELLED].outcome == "skipped"
    score, reason, layers = found[MORE]
    assert score < domains.NEAR
    assert ": near (" in reason
    assert not layers
    score, reason, layers = found[FAR]
    assert score >= domains.FAR
    assert ": far (" in reason
    assert layers


def test_a_report_without_a_source_says_where_the_distance_of_other_images_stands(home):
    report = transferred(attempt(home, "apart", minutes=0.02, unlabelled=MORE))["report"]
    why = report["not_computed"]["domain"]
    assert why.startswith("no other dataset was joined as a source; ")
    step = why.partition("see '")[2].partition("'")[0]
    assert step in by_step(report)


@pytest.mark.parametrize(
    ("apart", "num_more", "why"),
    [(0.7, 1000, "not near"), (0.1, 99, "needs 10 times as many"), (0.1, 100, "no built recipe")],
)
def test_distance_and_number_decide_about_unlabelled_images(apart, num_more, why):
    assert why in domains._refusal(apart, num_more, 10)


def test_labels_of_unlabelled_images_do_not_come_along(home):
    context = attempt(home, "blind", unlabelled=MORE)
    task, _ = transfer.plan(context, recipes.parse(context.document.recipe), full=True)
    assert (task.unlabelled.labels_N == -1).all()
    assert (np.asarray(task.unlabelled.index.label) == -1).all()
    assert not task.unlabelled.index.classes


def test_a_stop_leaves_what_other_datasets_could_add(home):
    _, outcome = searched(home, "stopped", request="stop", source=SOURCE, unlabelled=MORE)
    decisions = {one.step: (one.outcome, one.reason) for one in outcome.decisions}
    for step in (domains.JOINT, f"distance of {domains.UNLABELLED}"):
        assert decisions[step] == ("skipped", "the job was asked to stop")
    assert outcome.adaptation is None
