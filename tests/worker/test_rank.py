"""The ranking job on tiny graphs (order, stages, time, what is skipped), and on a starter beside random weights."""

import hashlib
import json
import re
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.errors import JobFailure
from app.rankings import RankingIn
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.app import onnx_factories
from tests.conftest import COMPUTE_THREADS
from tests.worker.transfer_factories import Wire
from worker import rank, transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter, Yielded
from worker.backbones import features, prepared
from worker.contract.candidate import BLIND
from worker.data.ingest import IngestRequest, ingest
from worker.ingestion import StoredDataset
from worker.prepare import sources
from worker.ranking import contradiction, order
from worker.scores import intervals

LITE0, LITE1, MOBILENET = "timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "torchvision/mobilenet_v2"
NARROW, BROKEN, DEAD = "user/narrow", "user/broken", "user/dead"
EMOJI = Path(__file__).parents[2] / "examples" / "data" / "emoji.zip"
# Time that no machine needs.
MINUTES = 120


def store(folder, dataset_id, files):
    archive = folder / f"{dataset_id}.zip"
    archive.write_bytes(factories.pack(files))
    scratch = folder / f"ingest-{dataset_id}"
    scratch.mkdir()
    request = IngestRequest(archive=archive, filename=archive.name, dataset_id=dataset_id, scratch=scratch, seed=0)
    place = StoredDataset(FolderStorage(folder / "storage"), f"datasets/default/{dataset_id}")
    made = ingest(request, place, lambda *_: None)
    assert made.state == "ready", made.problems


def put(folder, name, graph, like=None):
    """A prepared backbone: a tiny graph, or one that takes what another takes."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    place = folder / "backbones" / digest
    place.mkdir(parents=True)
    (place / "backbone.onnx").write_bytes(graph)
    dims = onnx.load_from_string(graph).graph.output[0].type.tensor_type.shape.dim
    record = {
        "name": name, "architecture": name.partition("/")[2], "digest": digest, "feature_dim": dims[1].dim_value,
        "split": "", "activation_shape": None, "num_params": len(graph), "licence": "Apache-2.0",
        "preprocess": asdict(like.preprocess if like else onnx_factories.preprocess()), "files": {},
    }  # fmt: skip
    (place / "record.json").write_text(json.dumps(record))
    prepared.point(name, digest, folder / "backbones")
    return {"backbone": {"name": name}, "prefix": f"backbones/default/{digest}", "architecture": "x"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Coloured pictures, few and many; two good tiny backbones, and three bad ones."""
    folder = tmp_path_factory.mktemp("home")
    own = [
        put(folder, NARROW, onnx_factories.backbone_bytes(1, seed=3)),
        put(folder, BROKEN, biased(onnx_factories.backbone_bytes(), np.nan)),
        put(folder, DEAD, biased(onnx_factories.backbone_bytes(), -100.0)),
    ]
    for name, seed in ((LITE0, 0), (MOBILENET, 1)):
        put(folder, name, onnx_factories.backbone_bytes(12, seed=seed))
    (folder / "own.json").write_text(json.dumps(own))
    store(folder, "ds_few", factories.pictures(20, first=5000))
    store(folder, "ds_many", factories.pictures(240))
    store(folder, "ds_tiny", factories.pictures(2, first=7000))
    store(folder, "ds_handful", factories.pictures(3, first=9000))
    mixed = enumerate(factories.pictures(3, first=9500).values())
    store(folder, "ds_mixed", {f"{'abc'[number % 3]}/{number}.png": data for number, data in mixed})
    # Three of two colours to learn from, one of red.
    store(folder, "ds_lone", learned(factories.pictures(3, first=8000), {"red": 1}))
    return folder


def learned(files, most):
    """Of each class so many to learn from, all that there are unless `most` names it; the others are the test split."""
    seen, split = {}, {}
    for name, data in files.items():
        label = name.partition("/")[0]
        seen[label] = seen.get(label, 0) + 1
        split[f"{'train' if seen[label] <= most.get(label, len(files)) else 'test'}/{name}"] = data
    return split


def biased(graph, value):
    """The same graph with this bias: with NaN it gives no numbers, far below zero its ReLU lets nothing through."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, value, np.float32), "bias"))
    return model.SerializeToString()


@pytest.fixture
def race(home, tmp_path):
    """Runs one ranking job; (answer, wire, context)."""

    def run(*names, dataset="ds_few", minutes=MINUTES, seed=0, wire=None, **settings):
        wire = wire or Wire()
        return start(home, tmp_path, wire, names, dataset, minutes, seed, prepared=home / "none", **settings)

    return run


def start(home, folder, wire, names, dataset, minutes, seed, **settings):
    request = {"dataset": dataset, "backbones": list(names) or "auto", "max_minutes": minutes, "seed": seed}
    scratch = folder / f"scratch-{len(list(folder.iterdir()))}"
    scratch.mkdir()
    own = json.loads((home / "own.json").read_text())
    job = JobDocument(
        id=f"job_{scratch.name}", project="default", attempt=1, kind="rank", recipe=None, seed=seed, report_mode="fast",
        model_name=None, backbone=None, user_backbones=own,
        dataset=DatasetDocument(
            id=dataset, prefix=f"datasets/default/{dataset}", task="classification", digest="d" * 64, seed=0,
            classes=[], splits={},
        ),
        inputs={"study_id": "rnk_1", "request": RankingIn(**request).model_dump(mode="json")},
    )  # fmt: skip
    made = Settings(home=home, compute_threads=COMPUTE_THREADS, **settings)
    wire.reporter = Reporter(wire)
    context = RunContext(made, FolderStorage(home / "storage"), wire.reporter, job, scratch, "cpu")
    return rank.run(context), wire, context


def order_of(answer):
    return [row["backbone"] for row in answer["result"]["candidates"]]


def test_what_is_answered(race):
    answer, wire, _ = race(NARROW, LITE0, MOBILENET)
    result = answer["result"]
    json.dumps(answer, allow_nan=False)
    assert sorted(order_of(answer)[:2]) == [LITE0, MOBILENET]
    assert [row["rank"] for row in result["candidates"]] == [1, 2, 3]
    first, last = result["candidates"][0], result["candidates"][-1]
    assert last["backbone"] == NARROW
    assert last["reason"].endswith("worse by more than one standard error")
    assert last["prior"]["imagenet_top1"] is None
    assert last["behind"]["value"] > last["behind"]["standard_error"] > 0
    expected = first["expected_accuracy"]
    assert last["expected_accuracy"]["high"] < expected["low"] <= expected["value"] <= expected["high"] <= 1
    assert set(first["scores"]) == {"knn_loo", "ridge_loo", "centroid_loo"}
    assert first["scores"]["ridge_loo"] > 0.9
    assert {"logme", "nleep", "h_score", "nce", "leep", "reasons", "num_images"} == set(first["information"])
    assert first["information"]["nce"] is first["information"]["leep"] is None
    assert "without the classifier" in first["information"]["reasons"]["leep"]
    assert min(first["latency_ms"], first["images_per_second"], first["size_bytes"], first["seconds"]) > 0
    assert (first["stage"], first["num_images"], result["skipped"]) == (2, 48, [])
    assert result["data"] == {
        "num_images": 48, "num_classes": 3, "images_per_class_median": 16.0, "num_images_stage_1": 48,
        "largest_class_share": pytest.approx(1 / 3),
    }  # fmt: skip
    assert "order nothing" in result["warning"]
    assert answer["metrics"]["expected_accuracy"] == expected["value"]
    steps = [(event["data"]["backbone"], event["data"]["step"]) for event in wire.events("log") if event["data"]]
    assert [step for name, step in steps if name == LITE0] == ["stage 2", "order"]


def test_the_better_half_is_looked_at_on_all_images(race):
    answer, wire, _ = race(NARROW, LITE0, MOBILENET, dataset="ds_many")
    rows = {row["backbone"]: row for row in answer["result"]["candidates"]}
    assert [rows[name]["stage"] for name in (LITE0, MOBILENET, NARROW)] == [2, 2, 1]
    data = answer["result"]["data"]
    assert rows[LITE0]["num_images"] == data["num_images"] > 570
    assert 300 <= rows[NARROW]["num_images"] == data["num_images_stage_1"] < 310
    assert "not in the better half of stage 1" in rows[NARROW]["reason"]
    halving = {
        event["data"]["backbone"]: event["data"]["outcome"]
        for event in wire.events("log")
        if event["data"].get("step") == "halving"
    }
    assert halving == {LITE0: "kept", MOBILENET: "kept", NARROW: "dropped"}
    assert {row["information"]["num_images"] for row in rows.values()} == {data["num_images_stage_1"]}


def test_features_are_cached_for_later_and_the_test_split_is_not_touched(race, home):
    answer, wire, context = race(LITE0, seed=5)
    scratch = context.scratch / "again"
    scratch.mkdir()
    context = RunContext(context.settings, context.storage, context.reporter, context.document, scratch, "cpu")
    index = transfer.load(context, context.document.dataset)
    backbone = sources.open_backbone(context, LITE0)
    test = index.rows_of("test")
    assert features.num_missing(context, index, test, backbone) == len(test) > 0
    pool = np.setdiff1d(np.arange(len(index)), test)
    assert features.num_missing(context, index, pool, backbone) == 0
    assert answer["result"]["candidates"][0]["num_images"] == len(pool)
    _, wire, _ = race(LITE0, seed=5)
    assert any(f"{len(pool)} cached, 0 extracted" in message for message in wire.messages())


def test_where_each_class_has_one_picture_nothing_is_measured(race):
    """Left out, its class is unknown: all would be 0 of 3 right, whatever the backbone; a transfer is not that bad."""
    answer, wire, _ = race(NARROW, MOBILENET, LITE0, dataset="ds_tiny")
    json.dumps(answer, allow_nan=False)
    result, rows = answer["result"], answer["result"]["candidates"]
    assert (result["data"]["num_images"], result["data"]["images_per_class_median"]) == (3, 1)
    assert order_of(answer) == [LITE0, NARROW, MOBILENET]  # by ImageNet, of own weights the mean of the others
    for row in rows:
        assert row["expected_accuracy"] is row["score"] is row["prior"]["expected"] is None
        assert (row["prior"]["weight"], set(row["scores"].values())) == (1.0, {None})
        told = {
            "expected_accuracy",
            "score",
            "prior.expected",
            "scores.knn_loo",
            "scores.ridge_loo",
            "scores.centroid_loo",
        }
        assert row["not_computed"] == dict.fromkeys(told, BLIND)
        scores = {key: value for key, value in row["information"].items() if key not in ("reasons", "num_images")}
        assert set(scores.values()) == {None}
        assert row["information"]["reasons"] == dict.fromkeys(scores, BLIND)
        assert row["latency_ms"] > 0
    assert rows[0]["reason"] == f"first of 3 by accuracy on ImageNet alone: {BLIND}"
    apart = rows[0]["prior"]["imagenet_top1"] / 100 - rows[2]["prior"]["imagenet_top1"] / 100
    assert rows[2]["behind"] == {"value": pytest.approx(apart), "standard_error": order.PRIOR_ERROR}
    assert result["order"].startswith("by accuracy on ImageNet alone")
    assert f"no accuracy could be measured, the order is that of ImageNet: {BLIND}" in result["flags"]
    assert not any("check the labels" in flag for flag in result["flags"])
    names = ("expected_accuracy", "expected_accuracy_low", "expected_accuracy_high")
    assert [answer["metrics"][name] for name in names] == [None] * 3
    assert any(f"stage 2: tried, {BLIND}" in message for message in wire.messages())


def test_a_class_with_one_picture_does_not_count_as_wrong(race):
    answer, _, _ = race(LITE0, MOBILENET, dataset="ds_lone")
    result = answer["result"]
    assert result["data"]["num_images"] == 7
    for row in result["candidates"]:
        expected = row["expected_accuracy"]
        assert row["scores"]["ridge_loo"] == expected["value"] == 1.0
        # Six of six, and of the seventh nothing is known: it may be wrong or right.
        assert expected["low"] == pytest.approx(6 / 7 * intervals.clopper_pearson(6, 6)[0])
        assert expected["high"] == 1.0
        assert "1 of these images are of classes with one picture" in expected["what"]
        assert row["prior"]["weight"] == pytest.approx(30 / 36)
        assert 0 < row["score"] <= 1
        assert row["not_computed"] == {}
    assert result["flags"][0].startswith("1 of 7 images are of classes with one picture")


def test_a_handful_of_images_is_ranked_with_a_warning(race):
    result = race(LITE0, MOBILENET, dataset="ds_handful")[0]["result"]
    assert (result["data"]["num_images"], result["data"]["images_per_class_median"]) == (6, 2)
    assert any("2 images in the median class: the prior counts for much" in flag for flag in result["flags"])
    for row in result["candidates"]:
        expected = row["expected_accuracy"]
        assert expected["value"] > 0.5, "colours are easy"
        assert expected["high"] - expected["low"] > 0.4
        assert "exact binomial" in expected["what"]
        assert "mean of 10 draws" in expected["what"]
        assert row["scores"]["ridge_loo"] > 0.5
        assert row["prior"]["weight"] == pytest.approx(30 / 36)
        assert 0 <= row["prior"]["expected"] <= 1
        assert 0 < row["score"] <= 1
    assert result["candidates"][0]["backbone"] == LITE0  # the better by ImageNet, where the data say little


def test_so_few_images_say_nothing_against_their_labels(race):
    """Colours that are no class: nobody can be better than chance, but six images could not show it either."""
    result = race(LITE0, MOBILENET, dataset="ds_mixed")[0]["result"]
    assert result["data"]["num_images"] == 6
    (told,) = [flag for flag in result["flags"] if "always naming the largest class" in flag]
    assert told.endswith("add images, so few cannot show it")


TIMES = {"seconds", "latency_ms", "images_per_second"}


def test_the_same_seed_gives_the_same_answer(race):
    first, again = (race(LITE0, MOBILENET, NARROW, dataset="ds_many", seed=2)[0]["result"] for _ in range(2))
    for one, other in zip(first["candidates"], again["candidates"], strict=True):
        assert {key: one[key] for key in one.keys() - TIMES} == {key: other[key] for key in other.keys() - TIMES}
    assert first["flags"] == again["flags"]


def test_what_cannot_be_had_is_skipped_and_told(race):
    answer, _, _ = race(LITE0, "timm/resnet50", BROKEN, DEAD, offline=True)
    result = answer["result"]
    assert order_of(answer) == [LITE0]
    assert [(one["backbone"], one["step"], one["forecast_seconds"]) for one in result["skipped"]] == [
        ("timm/resnet50", "prepare", None), (BROKEN, "stage 2", None), (DEAD, "stage 2", None),
    ]  # fmt: skip
    assert "GRAFT_OFFLINE" in result["skipped"][0]["reason"]
    assert "not finite numbers" in result["skipped"][1]["reason"]
    assert "same for every image" in result["skipped"][2]["reason"]
    assert any("timm/resnet50, user/broken, user/dead" in flag for flag in result["flags"])
    assert answer["metrics"]["num_skipped"] == 3
    with pytest.raises(JobFailure, match="one candidate at least that works") as caught:
        race("timm/resnet50", BROKEN, offline=True)
    assert caught.value.code == "weights_unavailable"


def test_a_step_that_does_not_fit_the_time_does_not_start(race, monkeypatch):
    monkeypatch.setattr(rank, "PREPARE_SECONDS", 1e6)
    answer, wire, _ = race(LITE0, LITE1)
    [skipped] = answer["result"]["skipped"]
    assert (skipped["backbone"], skipped["step"], skipped["forecast_seconds"]) == (LITE1, "prepare", 1e6)
    assert "1000000.0 s and a download does not fit" in skipped["reason"]
    assert any(f"{LITE1}, prepare: skipped" in message for message in wire.messages())


def test_no_time_for_anybody_fails_and_says_what_is_needed(race, monkeypatch):
    """Scores of twenty images, the fewest, would take 20 / 300 of it."""
    monkeypatch.setattr(rank, "SCORE_SECONDS", 3e4)
    with pytest.raises(JobFailure, match=f"found none; {LITE0}: its forecast of .* for .* images to extract") as caught:
        race(LITE0, minutes=1, dataset="ds_many")
    assert caught.value.code == "timed_out"
    wanted = float(re.search(r"set max_minutes to ([\d.]+) or more", caught.value.message)[1])
    assert 2000 - 25 < 60 * wanted < 3000


def test_without_any_time_candidates_are_ranked_on_the_fewest_images(race):
    answer, wire, _ = race(NARROW, LITE0, MOBILENET, dataset="ds_many", minutes=1e-6)
    result = answer["result"]
    assert order_of(answer)[-1] == NARROW
    data = result["data"]
    assert 20 <= data["num_images_stage_1"] <= 24
    assert {row["num_images"] for row in result["candidates"]} == {data["num_images_stage_1"]}
    told = f"stage 1 looks at {data['num_images_stage_1']} of {data['num_images']} images (4%), drawn by class"
    assert result["flags"][0].startswith(told)
    assert any(message.startswith(told) for message in wire.messages())
    assert {one["step"] for one in result["skipped"]} == {"stage 2"}
    assert "its place is from stage 1" in result["candidates"][0]["reason"]


def test_time_that_does_not_hold_stage_1_for_all_holds_fewer_images_for_each(race, monkeypatch):
    """Scores of stage 1, three times 3,000 s, do not fit the two hours; of half of its images they do."""
    monkeypatch.setattr(rank, "SCORE_SECONDS", 3000.0)
    answer, _, _ = race(NARROW, LITE0, MOBILENET, dataset="ds_many")
    data = answer["result"]["data"]
    assert 145 <= data["num_images_stage_1"] <= 160
    assert "stage 1 looks at" in answer["result"]["flags"][0]
    assert {row["backbone"]: row["stage"] for row in answer["result"]["candidates"]} == {
        LITE0: 2, MOBILENET: 2, NARROW: 1,
    }  # fmt: skip


def test_one_candidate_whose_images_do_not_all_fit_is_looked_at_on_some(race, monkeypatch):
    monkeypatch.setattr(rank, "SCORE_SECONDS", 9000.0)
    answer, _, _ = race(LITE0, dataset="ds_many")
    assert "stage 1 looks at" in answer["result"]["flags"][0]
    assert answer["result"]["data"]["num_images_stage_1"] < 300


class Clock(Wire):
    """Hears when stage 1 is over; from then on all time is gone."""

    def write(self, text):
        if "halving" in text:
            self.reporter._began -= 1e6
        return super().write(text)


def test_when_time_ends_after_stage_1_places_are_from_there(race):
    answer, _, _ = race(NARROW, LITE0, MOBILENET, dataset="ds_many", wire=Clock())
    result = answer["result"]
    assert {row["stage"] for row in result["candidates"]} == {1}
    assert {(one["step"], one["backbone"]) for one in result["skipped"]} == {("stage 2", LITE0), ("stage 2", MOBILENET)}
    assert all(one["forecast_seconds"] > 0 for one in result["skipped"])
    assert "its place is from stage 1: its forecast" in result["candidates"][0]["reason"]
    assert order_of(answer)[-1] == NARROW


class Ending(Wire):
    """A worker that shuts down when the first candidate has been looked at."""

    def write(self, text):
        if "tried" in text:
            self.reporter._request = "yield"
        return super().write(text)


def test_it_yields_between_candidates(race):
    wire = Ending()
    with pytest.raises(Yielded):
        race(LITE0, MOBILENET, wire=wire)
    assert len([message for message in wire.messages() if "tried" in message]) == 1


class Stopped(Wire):
    """An owner who has seen enough when the first candidate has been looked at."""

    def write(self, text):
        if self.word in text:
            self.reporter._request = "stop"
        return super().write(text)

    word = "tried"


def test_a_stopped_ranking_keeps_the_order_known_so_far(race):
    answer, wire, _ = race(LITE0, MOBILENET, wire=Stopped())
    assert len([message for message in wire.messages() if "tried" in message]) == 1
    assert len(order_of(answer)) == 1
    (left,) = answer["result"]["skipped"]
    assert "asked to stop" in left["reason"]


def test_a_ranking_that_is_stopped_after_stage_1_has_its_order(race):
    wire = Stopped()
    wire.word = "halving"
    answer, _, _ = race(NARROW, LITE0, MOBILENET, dataset="ds_many", wire=wire)
    assert {row["stage"] for row in answer["result"]["candidates"]} == {1}
    assert order_of(answer)[-1] == NARROW


def test_a_ranking_that_is_stopped_before_anybody_was_looked_at_fails(race):
    wire = Stopped()
    wire.word = "load"
    with pytest.raises(JobFailure) as caught:
        race(LITE0, MOBILENET, wire=wire)
    assert caught.value.code == "stopped"


def test_the_answer_says_what_orders_and_who_is_tied(race):
    result = race(LITE0, MOBILENET)[0]["result"]
    rows = result["candidates"]
    assert "`score`" in result["order"]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert all(row["tied"] == (row["behind"]["value"] <= row["behind"]["standard_error"] + 1e-12) for row in rows)
    higher = [row["backbone"] for row in rows if contradiction.is_above(row, rows[0])]
    assert any("which stands first" in flag for flag in result["flags"]) == bool(higher)
    assert all(("but it stands lower because" in row["reason"]) == (row["backbone"] in higher) for row in rows)


def test_one_class_outside_the_test_split_is_refused(home, race):
    pictures = factories.pictures(8, first=900)
    files = {f"{'test' if name.startswith('blue') else 'train'}/{name}": data for name, data in pictures.items()}
    one = {name: data for name, data in files.items() if "green" not in name}
    store(home, "ds_one", one)
    with pytest.raises(JobFailure, match="2 different pictures and 2 classes") as caught:
        race(LITE0, dataset="ds_one")
    assert caught.value.code == "dataset_invalid"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Emoji as they are, and the same pictures under shuffled labels; a starter with random weights."""
    folder = tmp_path_factory.mktemp("real")
    starter = prepared.find(LITE0, [Settings().prepared])
    assert starter is not None, "expected the starters; run `make setup`"
    own = [put(folder, "user/random", at_random(starter.graph.read_bytes()), starter)]
    (folder / "own.json").write_text(json.dumps(own))
    with zipfile.ZipFile(EMOJI) as archive:
        every = sorted(info.filename for info in archive.infolist() if not info.is_dir())
        some = [
            name for name in every if [one for one in every if Path(one).parent == Path(name).parent].index(name) < 18
        ]
        files = {name: archive.read(name) for name in some}
    store(folder, "ds_emoji", files)
    names = sorted(files)
    labels = [Path(name).parent.name for name in names]
    shuffled = np.random.default_rng(0).permutation(labels)
    store(folder, "ds_shuffled", {f"{label}/{Path(name).name}": files[name]
                                  for label, name in zip(shuffled, names, strict=True)})  # fmt: skip
    return folder


def at_random(graph):
    """The same network: every convolution drawn anew from normal numbers of its own mean and deviation."""
    model, rng, drawn = onnx.load_from_string(graph), np.random.default_rng(0), 0
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 4:
            new = rng.normal(weight.mean(), weight.std(), weight.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
            drawn += 1
    assert drawn > 30
    return model.SerializeToString()


def test_random_weights_come_last_on_real_images(real, tmp_path):
    answer, _, _ = start(real, tmp_path, Wire(), ("user/random", LITE0, MOBILENET), "ds_emoji", MINUTES, 0)
    rows = {row["backbone"]: row for row in answer["result"]["candidates"]}
    assert order_of(answer)[-1] == "user/random"
    last, starters = rows["user/random"], (rows[LITE0], rows[MOBILENET])
    for starter in starters:
        assert last["expected_accuracy"]["high"] < starter["expected_accuracy"]["low"]
        assert last["information"]["logme"] < starter["information"]["logme"]
        assert last["scores"]["knn_loo"] < starter["scores"]["knn_loo"]
    assert rows[LITE0]["information"]["leep"] < rows[LITE0]["information"]["nce"] < 0
    assert rows[LITE0]["information"]["reasons"] == {}
    assert not any("largest class" in flag for flag in answer["result"]["flags"])


def test_shuffled_labels_are_chance_and_flagged(real, tmp_path):
    answer, _, _ = start(real, tmp_path, Wire(), (LITE0, MOBILENET), "ds_shuffled", MINUTES, 0)
    data = answer["result"]["data"]
    for row in answer["result"]["candidates"]:
        expected = row["expected_accuracy"]
        assert expected["low"] <= data["largest_class_share"]
        assert expected["value"] < 2.5 / data["num_classes"]
    assert any("no candidate is better than always naming the largest class" in flag
               for flag in answer["result"]["flags"])  # fmt: skip
