"""The whole report of small transfers: what every one has, what a full one adds, what shuffled labels lead to."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.artifact import bundle, predicted
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.conftest import COMPUTE_THREADS
from tests.worker import nulls, recount, transfer_factories
from tests.worker.transfer_factories import Wire
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.overlap import exposed
from worker.prepare import sources

ROOT = Path(__file__).parents[3]
PLAIN, SHUFFLED, TWO, GROUPED = "ds_plain", "ds_shuffled", "ds_two", "ds_grouped"
EACH = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The same pictures under their own labels, under labels that were dealt out anew, and two of each class."""
    folder = tmp_path_factory.mktemp("home")
    plain = factories.pictures(EACH)
    names = [name.rpartition("/")[0] for name in plain]
    dealt = np.random.default_rng(0).permutation(names)
    shuffled = {
        f"{label}/{place}.png": data for place, (label, data) in enumerate(zip(dealt, plain.values(), strict=True))
    }
    labels = sorted({name.rpartition("/")[0] for name in plain})
    grey = factories.pictures(len(labels) * EACH, {"dark": (60, 60, 60)})
    grouped = {name.replace("/", "/light/"): data for name, data in plain.items()} | {
        f"{labels[place % len(labels)]}/dark/{place}.png": data for place, data in enumerate(grey.values())
    }
    sets = {PLAIN: plain, SHUFFLED: shuffled, TWO: factories.pictures(2), GROUPED: grouped}
    return transfer_factories.stored(folder, sets)


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    """Jobs of this file stand on one small backbone."""
    monkeypatch.setattr(sources, "open_backbones", lambda context: (transfer_factories.cnn(),))


def run(home, name, wire=None, dataset=PLAIN, recipe=None, **settings):
    described = DatasetDocument(
        id=dataset, prefix=f"datasets/default/{dataset}", task="classification", digest="d" * 64, seed=0, classes=[],
        splits={"train": 1},
    )  # fmt: skip
    document = JobDocument(
        id=f"job_{name}", project="default", attempt=1, kind="transfer", seed=0, report_mode="fast",
        recipe=recipe or {"method": "linear_probe"}, model_name="m", backbone="small", user_backbones=[],
        dataset=described, inputs={},
    )  # fmt: skip
    scratch = home / name
    scratch.mkdir()
    settings = Settings(home=home, compute_threads=COMPUTE_THREADS, **settings)
    storage = FolderStorage(home / "storage")
    context = RunContext(settings, storage, Reporter(wire or Wire()), document, scratch, "cpu")
    done = transfer.run(context)
    return done, (storage.fetch(f"{done['prefix']}/README.md")).read_text()


def test_a_fast_report_has_what_its_items_allow(home):
    done, card = run(home, "fast")
    report = done["report"]
    assert report["flags"] == []
    assert "largest class" not in card
    worst = report["worst_class"]
    assert worst["recall"] == done["metrics"]["test_worst_class_recall"]
    assert worst["low"] <= worst["recall"] <= worst["high"]
    curve = report["calibration"]["risk_coverage"]
    assert curve["num_samples"] == done["metrics"]["num_test"]
    assert 0 <= curve["optimal"] <= curve["aurc"] <= 1
    before, after = (report["calibration"]["selection"][name] for name in ("before", "after"))
    assert after["nll"] <= before["nll"] + 1e-9
    told = report["estimate"]
    assert told["found"] == done["metrics"]["test_accuracy"]
    assert told["known_accuracy"] == done["metrics"]["selection_accuracy"]
    assert told["num_items"] == done["metrics"]["num_test"]
    assert told["low"] <= told["value"] <= told["high"]
    learned, test = report["feature_map"]["groups"]
    assert (learned["name"], learned["correct"]) == ("learned from", None)
    assert len(test["x"]) == len(test["label"]) == len(test["correct"]) == done["metrics"]["num_test"]
    assert np.mean(test["correct"]) == pytest.approx(done["metrics"]["test_accuracy"])
    assert report["cost"]["energy_proxy"]["cpu_seconds"] > 0
    assert report["cost"]["energy_proxy"]["gpu_seconds"] == 0
    assert report["data"]["exposure"]["label_set"] == "ImageNet-1k"
    # Colours alone are the names of no class of ImageNet.
    assert report["data"]["exposure"]["classes"] == []
    for name in ("robustness", "out_of_distribution"):
        assert report[name] is None
        assert '"report": "full"' in report["not_computed"][name]
    assert report["verdict"] is report["verdicts"]["vs_scratch"] is report["baselines"]["scratch"] is None
    assert report["curve"] is None
    for name in ("verdict", "verdicts.vs_scratch", "baselines.scratch", "curve"):
        assert report["not_computed"][name] == report["baselines_skipped"]["scratch"]
        assert '"report": "full"' in report["not_computed"][name]
    assert report["feature_distortion"] is None
    assert report["not_computed"]["feature_distortion"]
    assert report["worst_group"] is None
    assert "folders" in report["not_computed"]["worst_group"]
    assert report["seed_deviation"] == {"transfer": None, "scratch": None}
    assert report["not_computed"]["seed_deviation.transfer"].endswith("has them, and so has auto")
    assert nulls.unexplained(report) == []
    json.dumps(report, allow_nan=False)


def test_folders_below_the_classes_are_groups_and_the_worst_is_told(home):
    done, _ = run(home, "grouped", dataset=GROUPED)
    worst, num_test = done["report"]["worst_group"], done["metrics"]["num_test"]
    # Pictures of one group are of one colour, whatever their class is.
    assert (worst["group"], worst["num_groups"]) == ("dark", 2)
    assert worst["accuracy"] < done["metrics"]["test_accuracy"]
    assert worst["low"] <= worst["accuracy"] <= worst["high"]
    assert 10 <= worst["num_samples"] < num_test


def test_one_picture_of_each_class_to_learn_from_tells_nothing_before_the_test(home):
    done, _ = run(home, "two", dataset=TWO)
    report = done["report"]
    names = ("val_accuracy", "selection_accuracy", "cv_accuracy_mean")
    assert [done["metrics"][name] for name in names] == [None] * 3
    assert all("one picture" in report["not_computed"][f"metrics.{name}"] for name in names)
    assert [flag["code"] for flag in report["flags"] if flag["code"].startswith("not_better")] == []
    assert "one picture" in report["forecast_skipped"]


def test_auto_says_of_one_picture_of_each_class_that_nothing_is_compared(home):
    done, _ = run(home, "two_auto", dataset=TWO, recipe={"method": "auto", "max_minutes": 0.3})
    report = done["report"]
    told = [one for one in report["decisions"] if one["outcome"] in ("tried", "kept", "dropped")]
    assert len(told) >= 4
    assert all(one["score"] is None and "one picture" in one["reason"] for one in told)
    assert report["verdict"] is report["verdicts"]["vs_frozen"] is None
    assert nulls.unexplained(report) == []


def test_what_is_null_has_a_reason(home):
    done, _ = run(home, "reasons")
    report = done["report"]
    reasons = report["not_computed"]
    paths = [name for name in ("robustness", "out_of_distribution", "feature_distortion") if report[name] is None]
    paths += [f"calibration.{name}" for name in ("ece", "adaptive_ece") if report["calibration"][name] is None]
    assert len(paths) == 5
    assert all(reasons[path] for path in paths)


def test_without_names_of_the_pretraining_exposure_says_so(home, tmp_path):
    done, _ = run(home, "nameless", prepared=tmp_path)
    assert done["report"]["data"]["exposure"] is None
    assert "make setup" in done["report"]["not_computed"]["data.exposure"]


def test_shuffled_labels_give_chance_and_a_flag(home):
    wire = Wire()
    done, card = run(home, "shuffled", wire, dataset=SHUFFLED)
    metrics = done["metrics"]
    assert metrics["test_accuracy_low"] < 1 / 3 + 0.1
    assert [flag["code"] for flag in done["report"]["flags"]] == ["not_better_than_largest_class"]
    warned = [event for event in wire.events("log") if event["level"] == "warning"]
    assert [event["data"]["code"] for event in warned] == ["not_better_than_largest_class"]
    assert warned[0]["message"] == done["report"]["flags"][0]["message"]
    assert "not shown to be better than always naming the largest class" in re.sub(r"\\(.)", r"\1", card)


def test_a_trained_backbone_tells_how_far_its_features_moved(home):
    done, _ = run(home, "tuned", recipe={"method": "fine_tune", "scope": "full", "epochs": 3})
    report = done["report"]
    rows = predicted.read(home / "storage" / done["prefix"] / bundle.PREDICTIONS)
    for name, named in rows.baselines.items():
        right = np.mean([one == label for one, label in zip(named, rows.labels, strict=True)])
        assert right == pytest.approx(report["baselines"][name]["value"])
    recount.check(report, home / "storage" / done["prefix"] / bundle.SELECTION)
    trained = report["details"]["served"] == "the trained network"
    assert set(rows.baselines) == {"scratch", *(("frozen",) if trained else ())}
    if trained:
        moved = report["feature_distortion"]
        assert moved["mean_relative_change"] > 0
        assert 0 < moved["linear_cka"] < 1
        assert moved["num_samples"] == done["metrics"]["num_test"]
        assert [group["name"] for group in report["feature_map"]["groups"]] == ["test"]
    else:
        assert report["not_computed"]["feature_distortion"] == "the backbone is served unchanged"


def test_exposure_names_classes_of_the_pretraining(home, tmp_path):
    context = transfer_factories.context(tmp_path, Wire())
    task = transfer_factories.task(stored(context), transfer_factories.cnn())
    found, reason = exposed.section(task, "timm/tf_efficientnet_lite0", ("daisy", "tigers", "nothing of the kind"))
    assert reason == ""
    assert [(row["name"], row["by"]) for row in found["classes"]] == [("daisy", "name"), ("tigers", "plural")]
    ways = {
        "t_shirt": "name", "jack_o_lantern": "name", "n02099601_golden_retriever": "name", "Persian_cats": "plural",
        "tabby-cat": "name", "animal_mammal": "part", "place_building": "part", "terrier": "part", "birds": "includes",
    }  # fmt: skip
    # Words of definitions are no names: of a dowitcher's, a menu's, a palace's and a cauliflower's.
    others = ("family", "meal", "person_role", "person", "crowd", "not_a_word")
    found, _ = exposed.section(task, "timm/tf_efficientnet_lite0", (*ways, *others))
    assert {row["name"]: row["by"] for row in found["classes"]} == ways
    assert {row["name"]: row["num_pretraining_classes"] for row in found["classes"] if row["by"] == "includes"} == {
        "birds": 59
    }
    for backbone, words in (("user/mine", "not recorded"), ("open_clip/ViT-B-32.openai", "captioned")):
        found, reason = exposed.section(task, backbone, ("daisy",))
        assert found is None
        assert words in reason


def test_exposure_of_a_chained_backbone_is_that_of_the_public_one_at_its_root(tmp_path):
    context = transfer_factories.context(tmp_path, Wire())
    task = transfer_factories.task(stored(context), transfer_factories.cnn())

    def asked(name, **sources):
        own = [{"backbone": {"name": f"user/{one}"}, "source": source} for one, source in sources.items()]
        document = context.document.model_copy(update={"user_backbones": own})
        return exposed.section(replace(task, context=replace(context, document=document)), name, ("daisy",))

    lite = "timm/tf_efficientnet_lite0"
    for sources_ in (
        {"a": {"backbone": lite}},
        {"a": {"backbone": "user/b"}, "b": {"backbone": lite}},
        # The one in the middle was deleted, and remembered.
        {"a": {"backbone": "user/b", "below": {"backbone": lite}}},
    ):
        found, reason = asked("user/a", **sources_)
        assert reason == ""
        assert (found["backbone"], [row["by"] for row in found["classes"]]) == (lite, ["name"])
    for sources_, words in (
        ({"a": {"backbone": "user/b"}}, "user/b, a backbone below it, was deleted"),
        ({"a": {"backbone": "user/b"}, "b": None}, "weights of user/b learned from before they were uploaded"),
        ({"a": {"backbone": "user/b", "below": None}}, "weights of user/b learned from before they were uploaded"),
        ({"a": {"backbone": "open_clip/ViT-B-32.openai"}}, "captioned"),
    ):
        found, reason = asked("user/a", **sources_)
        assert found is None
        assert words in reason


def stored(context):
    archive = context.scratch / "few.zip"
    archive.write_bytes(factories.pack(factories.pictures(4)))
    transfer_factories.store(context, archive)
    return context
