"""What a full report waits for, on the bundles that real transfers made: the same items, and only what was missing."""

import functools
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from app.artifact import bundle, predicted, selection
from app.errors import JobFailure
from app.services import reports
from tests import factories
from tests.worker import nulls, recount
from tests.worker.study_factories import SHADES, side, small_lab
from tests.worker.transfer_factories import Wire
from worker import evaluation, transfer
from worker.attempt.progress import Reporter
from worker.evaluate import robustness, served_graph
from worker.methods import reference

IMAGES = ["robustness", "out_of_distribution"]
COMPARED = ["verdict", "verdicts.vs_scratch", "baselines.scratch", "curve", "seed_deviation.scratch"]
# What knowing the network from scratch may change in a report that is there already; all else stays.
CHANGED = {
    "verdict", "verdicts", "verdict_evidence", "baselines", "baselines_skipped", "gain", "curve", "forecast", "details",
    "cost", "flags", "decisions", "not_computed", "seed_deviation", *IMAGES,
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Shades, and one small backbone whose architecture can be trained from scratch."""
    with small_lab(tmp_path_factory.mktemp("home")) as found:
        found.store("ds_shades", factories.pictures(60, SHADES))
        yield found


@pytest.fixture(scope="module")
def made(lab):
    """A transfer whose report is to be a full one, as it is served."""
    return lab.transfer("ds_shades", report_mode="full")


def follower(lab, made, dataset="ds_shades", wire=None, **fields):
    """The job that follows a transfer, before it has run."""
    recipe = made["spec"]["recipe"]
    inputs = {"mode": "report", "original": {"job": made["report"]["job"]}, "side": side(made)}
    context = lab.context("evaluate", dataset, recipe=recipe, inputs=inputs, **fields)
    return replace(context, reporter=Reporter(wire or lab.wire))


@contextmanager
def swapped(lab, key, write):
    """While another content stands in the place of a stored file; `write` is given where to put it."""
    with TemporaryDirectory(dir=lab.folder) as folder:
        # What was put is the stored file by another name, and is not to be written again.
        other, kept = Path(folder) / "other", Path(folder) / "kept"
        kept.write_bytes(lab.storage.fetch(key).read_bytes())
        write(other)
        lab.storage.put(key, other)
        try:
            yield
        finally:
            lab.storage.put(key, kept)


@pytest.mark.parametrize("method", ["linear_probe", "few_shot"])
def test_the_transfer_is_as_a_fast_one_and_says_what_follows(lab, method):
    made, fast = (lab.transfer("ds_shades", method, report_mode=mode) for mode in ("full", "fast"))
    report = made["report"]
    assert made["metrics"] == fast["metrics"]
    assert "follow_up" not in fast["report"]
    told = report["follow_up"]
    more = [] if report["gain"] else ["gain"]
    assert (told["job"], set(told["fills"])) == (None, {*IMAGES, *COMPARED, *more, "forecast.more_images"})
    for path in told["fills"]:
        assert functools.reduce(lambda found, name: found[name], path.split("."), report) is None
        assert report["job"] in report["not_computed"][path]
    same = report.keys() - {"job", "cost", "not_computed", "baselines_skipped", "forecast", "follow_up"}
    assert {key: report[key] for key in same} == {key: fast["report"][key] for key in same}


@pytest.fixture(scope="module")
def followed(lab, made):
    """That job, once it has ended: its attempt, what it gives back, and the whole report."""
    context = follower(lab, made)
    done = evaluation.run(context)
    return context, done, reports.filled(made["report"], done["result"])


def test_what_follows_fills_in_what_is_missing_and_nothing_else(lab, made, followed):
    before = made["report"]
    _, found, report = followed
    assert found["metrics"] == {}
    json.dumps(found["result"], allow_nan=False)
    assert found["result"]["predictions"]["share_equal"] == 1
    assert {key for key in report if report[key] != before[key]} <= CHANGED
    assert report["metrics"] == before["metrics"]
    assert report["baselines"]["frozen"] == before["baselines"]["frozen"]
    assert report["verdicts"]["vs_frozen"] == before["verdicts"]["vs_frozen"]
    scratch = report["baselines"]["scratch"]
    assert scratch["num_samples"] == report["metrics"]["num_test"]
    assert report["verdict"] == report["verdicts"]["vs_scratch"] == report["verdict_evidence"]["vs_scratch"]["verdict"]
    gained = report["gain"]
    assert gained["over"] == "scratch"
    assert gained["value"] == pytest.approx(report["metrics"]["test_accuracy"] - scratch["value"])
    assert report["forecast"]["more_images"]
    assert report["forecast"]["more_images_skipped"] is None
    assert {key: value for key, value in report["forecast"].items() if not key.startswith("more_images")} == {
        key: value for key, value in before["forecast"].items() if not key.startswith("more_images")
    }
    assert report["cost"]["transfer_seconds"] == before["cost"]["transfer_seconds"]
    assert report["cost"]["baselines_seconds"] > 0
    assert not set(before["follow_up"]["fills"]) & report["not_computed"].keys()
    assert not any("not computed yet" in text for text in report["not_computed"].values())


def test_spoilt_images_are_those_that_were_scored(followed):
    report = followed[2]
    found = report["robustness"]
    num_test = report["metrics"]["num_test"]
    assert num_test <= robustness.MAX_IMAGES
    assert (found["num_images"], found["num_test"]) == (num_test, num_test)
    assert found["accuracy"] == pytest.approx(report["metrics"]["test_accuracy"])
    assert [row["name"] for row in found["corruptions"]] == ["noise", "blur", "jpeg", "brightness"]
    for row in found["corruptions"]:
        assert row["change"]["value"] == pytest.approx(row["accuracy"] - found["accuracy"])
        assert row["change"]["low"] <= row["change"]["value"] <= row["change"]["high"]
    strange = report["out_of_distribution"]
    assert strange["synthetic"]
    assert strange["num_familiar"] == num_test
    assert all(0 <= value <= 1 for value in strange["auroc"].values())


def test_an_attempt_that_takes_over_does_no_part_again(lab, followed):
    first, done, _ = followed
    wire = Wire()
    scratch = lab.folder / f"{first.document.id}-again"
    scratch.mkdir()
    again = replace(first, scratch=scratch, reporter=Reporter(wire))
    assert evaluation.run(again) == done
    assert any(text.startswith("resumed from step 2") for text in wire.messages())
    assert not any(text.startswith("baseline") for text in wire.messages())


def test_no_verdict_is_given_of_another_model(lab, made):
    """The published predictions are those of other labels: what the recipe gives now is not what was published."""
    key = f"{made['prefix']}/{bundle.PREDICTIONS}"
    known = predicted.read(lab.storage.fetch(key))
    turned = replace(known, probabilities=np.roll(known.probabilities, 1, axis=1))
    with swapped(lab, key, lambda path: predicted.write(path, turned, tuple(made["spec"]["labels"]))):
        found = evaluation.run(follower(lab, made))["result"]
    assert found["predictions"]["share_equal"] == 0
    report = reports.filled(made["report"], found)
    for path in COMPARED:
        assert "carried out again" in report["not_computed"][path]
    assert report["verdict"] is None
    assert report["baselines"]["scratch"] is None
    assert "carried out again" in report["baselines_skipped"]["scratch"]
    assert "carried out again" in report["forecast"]["more_images_skipped"]
    assert report["robustness"] is not None


def test_a_version_that_was_deleted_meanwhile_ends_the_job(lab):
    made = lab.transfer("ds_shades", report_mode="full")
    lab.storage.delete(made["prefix"])
    with pytest.raises(JobFailure) as caught:
        evaluation.run(follower(lab, made))
    assert caught.value.code == "version_deleted"


def test_a_version_that_is_deleted_beneath_it_ends_the_job_too(lab, monkeypatch):
    made = lab.transfer("ds_shades", report_mode="full")
    plan = transfer.plan

    def deleted(*given, **named):
        lab.storage.delete(made["prefix"])
        return plan(*given, **named)

    monkeypatch.setattr(transfer, "plan", deleted)
    with pytest.raises(JobFailure) as caught:
        evaluation.run(follower(lab, made))
    assert caught.value.code == "version_deleted"


def test_of_a_recipe_that_is_compared_anyway_only_images_follow(lab, monkeypatch):
    monkeypatch.setattr(reference, "MIN_SECONDS", 1.0)
    made = lab.transfer("ds_shades", "auto", report_mode="full", recipe={"max_minutes": 2})
    assert made["report"]["verdict"] is not None
    recount.check(made["report"], lab.storage.fetch(f"{made['prefix']}/{bundle.SELECTION}"))
    assert made["report"]["follow_up"]["fills"] == IMAGES
    assert made["report"]["curve"] is not None
    found = evaluation.run(follower(lab, made))["result"]
    assert sorted(found["filled"]) == sorted(IMAGES)
    assert found["predictions"] is None
    report = reports.filled(made["report"], found)
    assert report["robustness"]["accuracy"] == pytest.approx(report["metrics"]["test_accuracy"])


@pytest.fixture(scope="module")
def hurried(lab):
    """What `auto` makes in twelve seconds, which hold no two networks from scratch: these take sixteen."""
    return lab.transfer("ds_shades", "auto", report_mode="full", recipe={"max_minutes": 0.2})


def test_networks_for_which_there_was_no_time_are_trained_afterwards(lab, hurried, monkeypatch):
    before = hurried["report"]
    assert before["verdict"] is before["verdicts"]["vs_scratch"] is before["baselines"]["scratch"] is None
    waiting = {*IMAGES, *COMPARED} - {"curve"} | ({"gain"} if before["gain"] is None else set())
    assert set(before["follow_up"]["fills"]) == waiting
    assert nulls.unexplained({**before, "follow_up": {}}) == []
    assert any("does not fit" in one["reason"] for one in before["decisions"] if one["step"] == "baseline from scratch")
    monkeypatch.setattr(reference, "MIN_SECONDS", 1.0)
    found = evaluation.run(follower(lab, hurried))["result"]
    json.dumps(found, allow_nan=False)
    assert found["predictions"] is None
    report = reports.filled(before, found)
    evidence, scratch = report["verdict_evidence"]["vs_scratch"], report["baselines"]["scratch"]
    assert report["verdict"] == report["verdicts"]["vs_scratch"] == evidence["verdict"]
    # As many parts are held out in turn as make a hundred items, and the transfer has named each of these.
    said = selection.read(lab.storage.fetch(f"{hurried['prefix']}/{bundle.SELECTION}"))
    accuracies = report["details"]["scratch"]["holdout_accuracies"]
    assert reference.MIN_COMPARED <= evidence["num_samples"] <= len(said.ids)
    assert evidence["what"] == f"the transfer {said.what}; the other {len(accuracies)} hold-outs of 20 %"
    ours = np.mean([one == label for one, label in zip(said.named["transfer"], said.labels, strict=True)])
    assert evidence["difference"] == pytest.approx(ours - np.mean(accuracies), abs=0.1)
    assert report["gain"]["over"] == "scratch"
    assert report["gain"]["value"] == pytest.approx(report["metrics"]["test_accuracy"] - scratch["value"])
    assert report["baselines_skipped"] == {}
    assert report["cost"]["baselines_seconds"] > (before["cost"]["baselines_seconds"] or 0)
    worth = ("label_multiplier", "label_multiplier_low", "label_multiplier_high", "reasons")
    assert {key: value for key, value in report["curve"].items() if key not in worth} == {
        key: value for key, value in before["curve"].items() if key not in worth
    }
    assert "there is no network from scratch" not in str(report["curve"]["reasons"])
    # The job's own row stays true: it had no time.
    rows = [row for row in report["decisions"] if row["step"] == "baseline from scratch"]
    assert [row["outcome"] for row in rows] == ["skipped", "tried"]
    assert rows[1]["score"] == pytest.approx(np.mean(accuracies), abs=0.1)
    assert rows[1]["low"] < rows[1]["score"] <= rows[1]["high"]
    assert report["details"]["scratch"]["budget"] in rows[1]["reason"]
    assert nulls.unexplained({**report, "follow_up": {}}) == []
    assert not any("not computed yet" in text for text in report["not_computed"].values())
    assert {key for key in report if report[key] != before[key]} <= CHANGED


def test_so_they_are_beside_a_trained_network(lab, monkeypatch):
    monkeypatch.setattr(reference, "MIN_SECONDS", 1000.0)
    recipe = {"scope": "full", "epochs": 3, "augment": "none", "max_minutes": 2}
    made = lab.transfer("ds_shades", "fine_tune", report_mode="full", recipe=recipe)
    assert made["report"]["verdict"] is None
    monkeypatch.setattr(reference, "MIN_SECONDS", 1.0)
    report = reports.filled(made["report"], evaluation.run(follower(lab, made))["result"])
    assert report["verdict"] == report["verdict_evidence"]["vs_scratch"]["verdict"]
    assert report["gain"]["over"] == "scratch"
    assert report["verdicts"]["vs_frozen"] == made["report"]["verdicts"]["vs_frozen"]
    assert nulls.unexplained({**report, "follow_up": {}}) == []


def test_a_network_that_is_better_afterwards_is_told_of_and_not_served(lab, hurried):
    """The version's record has the transfer name everything wrong: what is held against it can only be better.

    If it has the time to learn, which is as long as in use: a second is too little on a busy machine.
    """
    key = f"{hurried['prefix']}/{bundle.SELECTION}"
    said, names = selection.read(lab.storage.fetch(key)), hurried["spec"]["labels"]
    wrong = [names[names.index(label) - 1] for label in said.labels]
    with swapped(lab, key, lambda path: selection.write(path, replace(said, named={**said.named, "transfer": wrong}))):
        found = evaluation.run(follower(lab, hurried))["result"]
    report = reports.filled(hurried["report"], found)
    assert report["verdict"] == "negative"
    assert "negative_transfer" in [flag["code"] for flag in report["flags"]]
    assert report["fallback"] is None
    assert "trained after its publication" in report["not_computed"]["fallback"]
    assert report["served"] == hurried["report"]["served"]


def test_a_stop_leaves_the_comparison_out_with_its_reason(lab, hurried):
    context = follower(lab, hurried)
    context.reporter._request = "stop"
    report = reports.filled(hurried["report"], evaluation.run(context)["result"])
    assert report["verdict"] is None
    assert reference.ASKED_TO_STOP in report["baselines_skipped"]["scratch"]
    for path in {*COMPARED} - {"curve"}:
        assert report["not_computed"][path] == report["baselines_skipped"]["scratch"]
    assert nulls.unexplained({**report, "follow_up": {}}) == []


def test_of_a_trained_network_each_stage_is_compared_on_other_images_too(lab, monkeypatch):
    """By the bundle's weights against those that training began with."""
    monkeypatch.setattr(reference, "MIN_SECONDS", 1.0)
    lab.store("ds_more", factories.pictures(20, first=900))
    beside = {"report_mode": "full", "datasets": {"unlabelled": "ds_more"}}
    recipe = {"scope": "full", "epochs": 8, "augment": "none"}
    made = lab.transfer("ds_shades", "fine_tune", recipe=recipe, **beside)
    before = made["report"]
    assert before["details"]["served"] == "the trained network"
    names = ("feature_distortion.stages", "feature_distortion.other_images")
    assert set(names) < set(before["follow_up"]["fills"])
    assert nulls.unexplained({**before, "follow_up": {}}) == []
    found = evaluation.run(follower(lab, made, datasets={"unlabelled": "ds_more"}))["result"]
    report = reports.filled(before, found)
    moved = report["feature_distortion"]
    stages = {row["stage"]: row["linear_cka"] for row in moved["stages"]}
    assert list(stages)[-1] == "features"
    assert stages["features"] < 0.9
    # The same items by torch as by the graphs that were scored.
    assert stages["features"] == pytest.approx(moved["linear_cka"], abs=1e-3)
    other = moved["other_images"]
    assert (other["what"], other["dataset"], other["num_samples"]) == ("unlabelled", "ds_more", 60)
    assert other["mean_relative_change"] > 0
    assert [row["stage"] for row in other["stages"]] == list(stages)
    assert nulls.unexplained({**report, "follow_up": {}}) == []
    alone = lab.transfer("ds_shades", "fine_tune", recipe=recipe)["report"]
    assert alone["feature_distortion"]["stages"] is alone["feature_distortion"]["other_images"] is None
    assert '"report": "full"' in alone["not_computed"][names[0]]
    assert "no other images" in alone["not_computed"][names[1]]


def test_networks_from_scratch_have_the_time_that_the_transfer_took(lab, made, monkeypatch):
    monkeypatch.setattr(reference, "MIN_SECONDS", 0.0)
    context = follower(lab, made)
    key = f"{made['prefix']}/{bundle.REPORT}"
    slow = json.loads(lab.storage.fetch(key).read_bytes())
    slow["cost"] |= {"transfer_seconds": 2.5, "images_cached": 0, "images_extracted": 9, "extraction_seconds": 1.0}
    with swapped(lab, key, lambda path: path.write_text(json.dumps(slow))):
        evaluation.run(context)
    told = [event for event in lab.wire.events("log") if event["message"].startswith("baseline from scratch: a")]
    assert [event["data"]["seconds"] for event in told] == [2.5]


def test_logits_are_what_the_softmax_of_the_head_is_given(lab, made):
    head = served_graph.open_head(lab.storage.fetch(f"{made['prefix']}/{bundle.HEAD}"))
    feats = np.random.default_rng(0).normal(size=(5, made["spec"]["backbone"]["feature_dim"])).astype(np.float32)
    probabilities, logits = head.run(feats)
    exact = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, exact / exact.sum(1, keepdims=True), atol=1e-6)
