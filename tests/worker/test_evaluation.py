"""Evaluations as jobs, on real small datasets, tiny graphs and bundles that real transfers made."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from app.artifact import alignment as artifact
from app.artifact import bundle, predicted
from app.errors import JobFailure
from tests import factories
from tests.worker.study_factories import Lab, side, stopping
from worker import evaluation, transfer
from worker.attempt import machine
from worker.auto import steps
from worker.backbones import features
from worker.methods import linear_probe
from worker.solvers import folds
from worker.solvers.folds import stratified_group_folds
from worker.studies import fold_study
from worker.training import probing

# Near each other, so that there are errors to tell models apart by.
SHADES = {"rose": (168, 124, 130), "moss": (156, 136, 122), "mauve": (160, 124, 140)}
OTHERS = {"rose": (168, 124, 130), "moss": (156, 136, 122), "slate": (90, 100, 110)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Shades, a child of them with a few more, other pictures with another class; a version of the shades."""
    found = Lab(tmp_path_factory.mktemp("home"))
    found.store("ds_shades", factories.pictures(30, SHADES))
    found.store("ds_others", factories.pictures(12, OTHERS, first=500))
    found.first = found.transfer("ds_shades")
    found.second = found.transfer("ds_shades", "few_shot")
    return found


def test_the_versions_own_test_split_gives_its_own_metrics(lab):
    found = lab.evaluate("ds_shades", lab.first)
    assert found["metrics"]["accuracy"] == pytest.approx(lab.first["metrics"]["test_accuracy"])
    assert found["metrics"]["macro_f1"] == pytest.approx(lab.first["metrics"]["test_macro_f1"])
    assert found["metrics"]["accuracy_low"] <= found["metrics"]["accuracy"] <= found["metrics"]["accuracy_high"]
    assert found["metrics"]["ece"] is None
    assert np.sum(found["confusion"]["matrix"]) == found["num_items"] == lab.first["metrics"]["num_test"]
    leaked = found["leakage"]
    assert (leaked["num_any"], leaked["seen_in"], leaked["unknown"]) == (0, [], None)
    # Nothing to leave out: the same items again.
    assert leaked["without"] == found["metrics"]
    assert (found["against"], found["comparison"]) == (None, None)
    json.dumps(found, allow_nan=False)


def test_items_that_the_version_learned_from_are_counted_and_left_out(lab):
    found = lab.evaluate("ds_shades", lab.first, split="all")
    learned = sum(lab.first["report"]["data"]["splits"][name] for name in ("train", "val"))
    leaked = found["leakage"]
    assert leaked["num_items"] == learned + lab.first["metrics"]["num_test"]
    assert leaked["num_any"] == leaked["num_learned_from"] == leaked["num_by_id"] == leaked["num_by_sha256"] == learned
    (place,) = leaked["seen_in"]
    assert (place["id"], place["num_items"], place["backbone"]) == ("ds_shades", learned, None)
    assert leaked["without"]["accuracy"] == pytest.approx(lab.first["metrics"]["test_accuracy"])
    assert leaked["without"]["num_items"] == lab.first["metrics"]["num_test"]
    told = [event for event in lab.wire.events("log") if event["level"] == "warning"]
    assert f"has learned from or seen {learned} of" in told[0]["message"]


def test_a_dataset_of_training_items_alone_leaves_nothing(lab):
    index = lab.context("evaluate", "ds_shades")
    rows = transfer.load(index, index.document.dataset)
    paths = [rows.paths[row].as_py() for row in rows.rows_of("train")]
    pictures = factories.pictures(30, SHADES)
    # Other names: the same bytes are no samples of the same dataset.
    lab.store("ds_taught", {f"{path.split('/')[0]}/again-{place}.png": pictures[path]
                            for place, path in enumerate(paths)})  # fmt: skip
    found = lab.evaluate("ds_taught", lab.first, split="all")
    leaked = found["leakage"]
    assert leaked["num_any"] == leaked["num_by_sha256"] == found["num_items"] == len(paths)
    assert leaked["num_by_id"] == 0
    assert leaked["without"] is None
    assert "every item" in leaked["reason"]


def test_labels_that_the_model_lacks_are_misses(lab):
    found = lab.evaluate("ds_others", lab.first, split="all")
    assert found["labels"]["missing"] == [{"label": "slate", "num_items": 12}]
    assert found["labels"]["without_items"] == ["mauve"]
    assert found["metrics"]["accuracy"] <= 2 / 3
    assert found["leakage"]["num_any"] == 0
    by_label = {row["label"]: row for row in found["per_class"]}
    assert by_label["slate"]["recall"] == 0.0


def test_features_of_an_unchanged_backbone_come_from_the_cache(lab):
    lab.evaluate("ds_shades", lab.first, split="all")
    told = next(event["data"] for event in lab.wire.events("log") if "num_cached" in event["data"])
    assert (told["num_cached"], told["num_extracted"]) == (90, 0)


def test_two_versions_on_the_same_items(lab):
    found = lab.evaluate("ds_shades", lab.second, lab.first)
    said = [
        predicted.read(lab.storage.fetch(f"{one['prefix']}/{bundle.PREDICTIONS}")) for one in (lab.second, lab.first)
    ]
    right = [np.array([a == b for a, b in zip(one.labels, one.predicted, strict=True)]) for one in said]
    assert found["comparison"]["difference"]["value"] == pytest.approx(right[0].mean() - right[1].mean())
    assert found["comparison"]["mcnemar"]["num_only_first"] == (right[0] & ~right[1]).sum()
    assert found["comparison"]["verdict"] in ("better", "worse", "no evidence")
    assert found["against"]["model"] == {"name": "m", "version": 2}
    assert found["against"]["metrics"]["accuracy"] == pytest.approx(lab.first["metrics"]["test_accuracy"])
    assert found["comparison"]["sentence"] in lab.wire.messages()
    json.dumps(found, allow_nan=False)


def test_a_domain_passes_through_its_alignment(lab, tmp_path):
    spec = lab.first["spec"]["backbone"]
    graph = tmp_path / "aligned.onnx"
    graph.write_bytes(artifact.affine(np.zeros(spec["feature_dim"]), np.zeros(spec["feature_dim"])))
    lab.storage.put("bundles/default/aln/alignment.onnx", graph)
    through = {"id": "aln_1", "number": 1, "prefix": "bundles/default/aln", "moving_backbone": None}
    inputs = {"mode": "versions", "split": "test", "sides": [side(lab.first, domain="dark", alignment=through)]}
    found = lab.run("evaluate", "ds_shades", inputs=inputs)["result"]
    # Every item looks the same behind it, so one class is named for all.
    assert found["domain"] == "dark"
    assert sum(np.sum(found["confusion"]["matrix"], axis=0) > 0) == 1


def test_a_version_that_was_deleted_meanwhile_is_a_clear_failure(lab):
    gone = {**lab.first, "prefix": "bundles/default/gone/attempt-1"}
    with pytest.raises(JobFailure, match=r"version 1 of 'm'.* deleted meanwhile") as caught:
        lab.evaluate("ds_shades", gone)
    assert caught.value.code == "version_deleted"


def test_a_bundle_without_a_record_says_that_nobody_knows(lab, tmp_path):
    prefix = "bundles/default/old/attempt-1"
    for key in list(lab.storage.list(lab.first["prefix"])):
        lab.storage.put(f"{prefix}/{key.rpartition('/')[2]}", lab.storage.fetch(key))
    document = json.loads(lab.storage.fetch(f"{prefix}/{bundle.SPEC}").read_text())
    del document["files"][bundle.SEEN]
    (tmp_path / "spec.json").write_text(json.dumps(document))
    lab.storage.put(f"{prefix}/{bundle.SPEC}", tmp_path / "spec.json")
    found = lab.evaluate("ds_shades", {"prefix": prefix}, lab.first)
    assert (found["leakage"]["num_any"], found["leakage"]["without"]) == (None, None)
    assert "without a record" in found["leakage"]["reason"]
    assert "is not known" in found["comparison"]["sentence"]


def test_a_split_without_items_is_refused(lab):
    index = transfer.load(lab.context("evaluate", "ds_others"), lab.documents["ds_others"])
    tested = tuple(one.decode() for one in index.ids[index.rows_of("test")])
    lab.store("ds_train", None, base="ds_others", remove=tested)
    with pytest.raises(JobFailure, match="ask for split all") as caught:
        lab.evaluate("ds_train", lab.first)
    assert caught.value.code == "dataset_invalid"


def fold(lab, dataset="ds_shades", against=None, num_folds=3, repeats=2, method="linear_probe", stop=None, **fields):
    inputs = {"mode": "folds", "against": against, "folds": num_folds, "repeats": repeats}
    context = lab.context("evaluate", dataset, recipe={"method": method, **fields}, inputs=inputs)
    return evaluation.run(stopping(context, stop) if stop is not None else context)["result"], context


def test_folds_equal_a_loop_over_them(lab):
    found, context = fold(lab)
    task = transfer.make_task(context, transfer.load(lab.context("evaluate", "ds_shades"), lab.documents["ds_shades"]))
    feats = linear_probe.frozen_features(task, task.pool)
    labels, groups = task.labels_N[task.pool], task.groups_N[task.pool]
    expected = []
    for repeat in range(2):
        fold_P = stratified_group_folds(labels, groups, 3, repeat)
        for number in range(3):
            rest, out = fold_P != number, fold_P == number
            head = probing.fit(feats[rest], labels[rest], groups[rest], task.pool[rest], 3, repeat)[0]
            expected.append((head.probabilities(feats[out]).argmax(1) == labels[out]).mean())
    assert [row["accuracy"] for row in found["rows"]] == pytest.approx(expected)
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(expected))
    assert found["metrics"]["accuracy"]["std"] == pytest.approx(np.std(expected, ddof=1))
    assert sum(row["num_test"] for row in found["rows"]) == 2 * len(task.pool)
    assert (found["num_folds"], found["ended"], found["against"]) == (6, "all folds", None)
    assert not np.isin(task.pool, task.index.rows_of("test")).any()
    json.dumps(found, allow_nan=False)


def test_the_mean_is_near_what_scikit_learn_says(lab):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found, context = fold(lab, num_folds=5, repeats=3)
    task = transfer.make_task(context, transfer.load(lab.context("evaluate", "ds_shades"), lab.documents["ds_shades"]))
    feats = linear_probe.frozen_features(task, task.pool)
    known = cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), feats, task.labels_N[task.pool])
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(known.mean(), abs=0.08)


def test_seeds_stand_apart_from_the_interval(lab):
    found, _ = fold(lab)
    repeats = [np.mean([row["accuracy"] for row in found["rows"] if row["repeat"] == one]) for one in (1, 2)]
    spread = found["seed_deviation"]["accuracy"]
    assert spread["scores"] == pytest.approx(repeats)
    assert spread["value"] == pytest.approx(np.std(repeats, ddof=1))
    assert spread["value"] != found["metrics"]["accuracy"]["std"]
    alone, _ = fold(lab, repeats=1)
    assert alone["seed_deviation"] is None
    assert "one seed" in alone["seed_deviation_skipped"]


def test_a_recipe_against_another_on_the_same_folds(lab):
    found, _ = fold(lab, against={"method": "few_shot"})
    apart = [row["accuracy"] - row["against"]["accuracy"] for row in found["rows"]]
    assert found["comparison"]["accuracy"]["mean"] == pytest.approx(np.mean(apart))
    assert found["against"]["metrics"]["accuracy"]["mean"] == pytest.approx(
        np.mean([row["against"]["accuracy"] for row in found["rows"]])
    )
    assert found["comparison"]["verdict"] in ("better", "worse", "no evidence")
    assert "linear_probe" in found["comparison"]["sentence"]
    json.dumps(found, allow_nan=False)


def test_a_stopped_study_keeps_the_folds_that_were_finished(lab):
    found, _ = fold(lab, stop=2)
    assert (found["num_folds"], found["num_folds_planned"], found["ended"]) == (2, 6, "stopped")
    with pytest.raises(JobFailure, match="at least one finished fold") as caught:
        fold(lab, stop=0)
    assert caught.value.code == "stopped"


class Killed(BaseException):
    """The process ends, whatever anybody catches."""


def test_an_attempt_that_takes_over_repeats_no_finished_fold(lab, monkeypatch):
    whole, _ = fold(lab, against={"method": "few_shot"})
    inputs = {"mode": "folds", "against": {"method": "few_shot"}, "folds": 3, "repeats": 2}
    first = lab.context("evaluate", "ds_shades", recipe={"method": "linear_probe"}, inputs=inputs)
    scored, original = [], fold_study._score

    def score(task, recipe, one, side, *ends):
        # In the middle of the fifth fold: its first recipe is done, its second one is not.
        if len(scored) == 9:
            raise Killed
        scored.append((one.repeat, one.number, side))
        return original(task, recipe, one, side, *ends)

    monkeypatch.setattr(fold_study, "_score", score)
    with pytest.raises(Killed):
        evaluation.run(first)
    again = lab.context("evaluate", "ds_shades", recipe={"method": "linear_probe"}, inputs=inputs)
    again = replace(again, document=again.document.model_copy(update={"id": first.document.id, "attempt": 2}))
    repeated = []
    monkeypatch.setattr(
        fold_study, "_score", lambda task, recipe, one, *rest: (
            repeated.append((one.repeat, one.number)), original(task, recipe, one, *rest))[1]
    )  # fmt: skip
    found = evaluation.run(again)["result"]
    assert repeated == [(1, 1), (1, 1), (1, 2), (1, 2)]
    assert [{**row} for row in found["rows"]] == whole["rows"]
    assert (found["metrics"], found["comparison"]) == (whole["metrics"], whole["comparison"])
    assert any(message.startswith("resumed from step 4") for message in lab.wire.messages())


def test_trained_folds_resume_from_no_other_fold(lab):
    """Equal folds of one recipe would find each other's checkpoints under the job's prefix."""
    found, context = fold(lab, method="fine_tune", num_folds=2, repeats=1, scope="head", epochs=2)
    keys = {key.split("/")[3] for key in lab.storage.list(f"checkpoints/default/{context.document.id}")}
    assert keys == {"folds", *(f"repeat-0-fold-{number}-side-0" for number in range(2))}
    assert not any("resumed" in message for message in lab.wire.messages())
    assert len({row["num_train"] for row in found["rows"]}) == 1
    assert list(context.scratch.glob("repeat-*")) == []


def test_folds_within_a_time_leave_the_test_split_alone(lab):
    lab.store("ds_apart", factories.pictures(10, SHADES, first=900))
    _, context = fold(lab, "ds_apart", method="fine_tune", num_folds=2, repeats=1, scope="head", max_minutes=600)
    task = transfer.make_task(context, transfer.load(lab.context("evaluate", "ds_apart"), lab.documents["ds_apart"]))
    test = task.index.rows_of("test")
    assert features.num_missing(task.context, task.index, test, task.backbone) == len(test) > 0


def test_more_folds_than_pictures_are_refused_and_small_classes_are_named(lab):
    lab.store("ds_tiny", factories.pictures(3, SHADES, first=700))
    with pytest.raises(JobFailure, match="different pictures") as caught:
        fold(lab, "ds_tiny", num_folds=10)
    assert caught.value.code == "dataset_invalid"
    found, _ = fold(lab, "ds_tiny", num_folds=3, method="few_shot")
    assert found["small_classes"]["labels"]


def test_folds_never_share_a_group(lab, monkeypatch):
    """Copies of one picture are on one side: the folds that are asked for are group folds."""
    asked = []
    original = folds.stratified_group_folds

    def watched(labels_N, groups_N, num_folds, seed):
        asked.append((groups_N, found := original(labels_N, groups_N, num_folds, seed)))
        return found

    monkeypatch.setattr("worker.studies.fold_study.stratified_group_folds", watched)
    fold(lab, repeats=1)
    groups_N, fold_N = asked[0]
    assert all(len(np.unique(fold_N[groups_N == group])) == 1 for group in np.unique(groups_N))


def reproduce(lab, made, dataset, method, **fields):
    original = {"job": "job_0", "prefix": made["prefix"], "model": "m", "version": 1}
    recipe = {"method": method, **fields.pop("recipe", {})}
    return lab.run("evaluate", dataset, recipe=recipe, inputs={"mode": "reproduce", "original": original}, **fields)


@pytest.mark.parametrize("method", ["linear_probe", "few_shot"])
def test_the_same_job_gives_the_same_model(lab, method):
    made = lab.first if method == "linear_probe" else lab.second
    found = reproduce(lab, made, "ds_shades", method)["result"]
    assert found["verdict"] == "identical"
    assert (found["predictions"]["share_equal"], found["predictions"]["num_items"]) == (
        1.0, lab.first["metrics"]["num_test"],
    )  # fmt: skip
    assert all(row["difference"] in (0.0, None) for row in found["metrics"])
    assert all(row["same"] for row in [*found["libraries"], *found["datasets"], found["backbone"]])
    assert found["bounds"].keys() == {"identical", "equivalent", "different"}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("method", ["auto", "fine_tune"])
def test_the_excerpt_that_time_once_held_is_taken_again_whatever_it_holds_now(lab, method, monkeypatch):
    """All features are in the cache by now, and another time would hold all images."""
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)
    monkeypatch.setattr(steps, "TUNED", ())
    # Of its own, so that nothing of it is cached.
    dataset, first = f"ds_{method}", {"auto": 2000, "fine_tune": 4000}[method]
    lab.store(dataset, factories.pictures(50, SHADES, first=first))
    recipe = {"max_minutes": 1e-6} | ({"scope": "head"} if method == "fine_tune" else {})
    made = lab.transfer(dataset, method, recipe=recipe)
    num = made["metrics"]["num_test"]
    assert num < 30
    assert lab.transfer(dataset)["metrics"]["num_test"] == 30
    found = reproduce(lab, made, dataset, method, recipe=recipe)["result"]
    assert (found["verdict"], found["predictions"]["num_items"]) == ("identical", num)
    # With more time another head may be served, but of the same images.
    longer = {**recipe, "max_minutes": 600, "epochs": 1} if method == "fine_tune" else {"max_minutes": 600}
    assert reproduce(lab, made, dataset, method, recipe=longer)["result"]["predictions"]["num_items"] == num


def test_all_images_are_taken_again_where_time_now_holds_an_excerpt(lab):
    lab.store("ds_cold", factories.pictures(50, SHADES, first=3000))
    made = lab.transfer("ds_cold")
    shutil.rmtree(lab.folder / "storage" / "features")
    found = reproduce(lab, made, "ds_cold", "fine_tune", recipe={"scope": "head", "max_minutes": 1e-6})["result"]
    assert found["predictions"]["num_items"] == made["metrics"]["num_test"] == 30


def test_another_recipe_is_no_reproduction(lab):
    """The control: the very same comparison says so when something else was trained."""
    found = reproduce(lab, lab.first, "ds_shades", "few_shot")["result"]
    assert found["verdict"] == "different"
    assert found["predictions"]["max_difference"] > 1e-3


def test_a_reproduction_publishes_nothing(lab):
    before = factories.files_below(lab.folder / "storage" / "bundles")
    reproduce(lab, lab.first, "ds_shades", "linear_probe")
    assert factories.files_below(lab.folder / "storage" / "bundles") == before


def test_a_reproduction_without_its_version_fails_clearly(lab):
    with pytest.raises(JobFailure, match="nothing can be compared without it") as caught:
        reproduce(lab, {"prefix": "bundles/default/none"}, "ds_shades", "linear_probe")
    assert caught.value.code == "version_deleted"


def test_an_adaptation_can_be_reproduced(lab):
    lab.store("ds_target", factories.pictures(8, SHADES, first=600))
    recipe = {"source": "ds_shades", "candidates": ["z_score"]}
    made = lab.transfer("ds_target", "adapt", recipe=recipe, datasets={"source": "ds_shades"})
    found = reproduce(lab, made, "ds_target", "adapt", recipe=recipe, datasets={"source": "ds_shades"})["result"]
    assert found["verdict"] == "identical"
    assert [row["id"] for row in found["datasets"]] == ["ds_target", "ds_shades"]
