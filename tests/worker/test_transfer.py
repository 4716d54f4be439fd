"""The transfer job from a stored dataset to a stored bundle, on a starter backbone and the demo's images."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from app import recipes
from app.artifact import bundle, predicted, reference, sample, scores, stored, tensors
from app.artifact.precisions import SECOND
from app.artifact.spec import load as load_spec
from app.errors import JobFailure
from app.settings import Settings
from app.storage import FolderStorage
from tests.conftest import COMPUTE_THREADS
from tests.worker import recount, transfer_factories
from tests.worker.transfer_factories import Wire, store
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.methods import linear_probe
from worker.prepare import sources
from worker.publication import assemble, second_graph
from worker.reports.foresight import Foresight

ROOT = Path(__file__).parents[2]
LITE0 = "timm/tf_efficientnet_lite0"
REPORT = {
    "verdict", "verdicts", "served", "metrics", "baselines", "gain", "per_class", "confusion", "calibration", "domain",
    "curve", "mapping", "data", "cost", "decisions",
}  # fmt: skip
METRICS = {
    "test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_macro_f1", "test_macro_recall", "val_accuracy",
    "cv_accuracy_mean", "cv_accuracy_std", "ece",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home with the demo's images stored; features are extracted by whichever test comes first."""
    folder = tmp_path_factory.mktemp("home")
    store(
        attempt(folder, "ingest", {"method": "linear_probe"}, io.StringIO()), ROOT / "examples" / "data" / "emoji.zip"
    )
    return folder


def attempt(home, name, recipe, wire, report_mode="fast", backbone=LITE0) -> RunContext:
    prefix = "datasets/default/ds_1"
    dataset = DatasetDocument(
        id="ds_1", prefix=prefix, task="classification", digest="d" * 64, seed=0, classes=[],
        splits={"train": 224, "val": 32, "test": 64},
    )  # fmt: skip
    document = JobDocument(
        id=f"job_{name}", project="default", attempt=1, kind="transfer", recipe=recipe, seed=0,
        report_mode=report_mode, model_name="m", backbone=backbone, user_backbones=[], dataset=dataset, inputs={},
    )  # fmt: skip
    scratch = home / name
    scratch.mkdir()
    settings = Settings(home=home, compute_threads=COMPUTE_THREADS)
    return RunContext(settings, FolderStorage(home / "storage"), Reporter(wire), document, scratch, "cpu")


def test_a_probe_leaves_a_whole_bundle_behind(home):
    context = attempt(home, "probe", {"method": "linear_probe"}, Wire())
    done = transfer.run(context)
    keys = list(context.storage.list(done["prefix"]))
    assert sorted(key.rpartition("/")[2] for key in keys) == sorted(
        [
            bundle.SPEC,
            *(name for name in bundle.FILES if name not in (bundle.BACKBONE, bundle.STATE, *bundle.SECOND.values())),
        ]
    )
    folder = context.storage.fetch(f"{done['prefix']}/{bundle.SPEC}").parent
    spec = load_spec((folder / bundle.SPEC).read_bytes())
    shared = spec.files[bundle.BACKBONE].key
    assert shared is not None
    bundle.verify(folder, {bundle.BACKBONE: context.storage.fetch(shared)})
    assert spec.parity.ok
    assert spec.parity.num_samples == assemble.PARITY_IMAGES_SHARED
    tried = sample.unpack(tensors.load(folder / bundle.SAMPLE), spec.backbone.feature_dim, len(spec.labels))
    assert (len(tried.pictures), tried.training) == (2, True)
    assert "small copies of 2 training images" in (folder / bundle.README).read_text()
    assert json.loads((folder / bundle.REPORT).read_text()) == done["report"]


def test_what_the_job_asks_to_be_published_with_it(home):
    """Too few pictures for second graphs, and no training image in the sample."""
    context = attempt(home, "asked", {"method": "linear_probe"}, Wire())
    asked = context.document.model_copy(update={"inputs": {**dict.fromkeys(SECOND, True), "sample": False}})
    done = transfer.run(replace(context, document=asked))
    for precision in SECOND:
        assert done["report"][precision]["published"] is False
        assert 0 < done["report"][precision]["num_samples"] < second_graph.MIN_ITEMS
        assert precision not in done["spec"]
    assert done["spec"]["spec_version"] == 1
    tried = tensors.load(context.storage.fetch(f"{done['prefix']}/{bundle.SAMPLE}"))
    assert not sample.unpack(tried, 1280, len(done["spec"]["labels"])).training
    card = context.storage.fetch(f"{done['prefix']}/{bundle.README}").read_text()
    assert "sample.safetensors" not in card


def test_a_bundle_of_a_worker_with_the_package_for_a_gpu(home, gpu_package):
    done = transfer.run(attempt(home, "gpu-package", {"method": "linear_probe"}, Wire()))
    assert done["spec"]["libraries"]["onnxruntime"] == onnxruntime.__version__


def test_the_report_says_what_the_predictions_say(home):
    context = attempt(home, "report", {"method": "linear_probe"}, Wire())
    done = transfer.run(context)
    report, metrics = done["report"], done["metrics"]
    assert report.keys() >= REPORT
    assert metrics.keys() >= METRICS
    rows = predicted.read(context.storage.fetch(f"{done['prefix']}/{bundle.PREDICTIONS}"))
    right = [label == predicted for label, predicted in zip(rows.labels, rows.predicted, strict=True)]
    assert metrics["test_accuracy"] == pytest.approx(np.mean(right))
    assert metrics["test_accuracy_low"] < metrics["test_accuracy"] < metrics["test_accuracy_high"]
    assert np.sum(report["confusion"]["matrix"]) == len(rows.ids) == metrics["num_test"]
    assert metrics["ece"] is None  # under 200 items it would say nothing
    assert report["baselines"]["frozen"]["value"] == metrics["test_accuracy"]
    assert report["baselines"]["scratch"] is None
    assert report["verdict"] is None
    # The job is the frozen probe: its gain over that would be a made-up interval around 0.
    assert report["gain"] is report["verdicts"]["vs_frozen"] is None
    assert "frozen probe itself" in report["not_computed"]["gain"]
    assert "frozen probe itself" in report["not_computed"]["verdicts.vs_frozen"]


def test_a_second_job_extracts_nothing_and_shares_the_graph(home):
    context = attempt(home, "warm", {"method": "linear_probe"}, Wire())
    first = transfer.run(context)
    again = transfer.run(attempt(home, "warm-2", {"method": "linear_probe"}, Wire()))
    assert again["report"]["cost"]["images_extracted"] == 0
    assert again["spec"]["files"][bundle.BACKBONE] == first["spec"]["files"][bundle.BACKBONE]
    assert again["metrics"] == first["metrics"]
    assert len(list(context.storage.list("graphs"))) == 1


def test_few_shot_is_compared_with_the_probe_on_the_same_folds_and_keeps_what_it_was_scored_on(home):
    context = attempt(home, "few", {"method": "few_shot"}, Wire())
    done = transfer.run(context)
    report = done["report"]
    assert report["verdicts"]["vs_frozen"] in ("positive", "none", "negative")
    evidence = report["verdict_evidence"]["vs_frozen"]
    assert evidence["what"] == "the transfer out of 5 folds; the other out of 5 folds"
    assert evidence["num_samples"] == sum(report["data"]["splits"][name] for name in ("train", "val"))
    recount.check(report, context.storage.fetch(f"{done['prefix']}/{bundle.SELECTION}"))
    assert report["baselines"]["frozen"]["what"].startswith("linear_probe")
    served = [decision for decision in report["decisions"] if decision["outcome"] == "served"]
    assert report["served"]["why"] == served[0]["reason"]
    assert done["metrics"]["cv_accuracy_mean"] == pytest.approx(done["metrics"]["selection_accuracy"], abs=0.02)
    spec = load_spec(json.dumps(done["spec"]).encode())
    assert spec.head in ("cosine", "neighbours")
    features, labels, rows = stored.unpack(tensors.load(context.storage.fetch(f"{done['prefix']}/{bundle.FEATURES}")))
    assert list(rows) == list(range(done["metrics"]["num_test"]))
    arrays = tensors.load(context.storage.fetch(f"{done['prefix']}/{bundle.WEIGHTS}"))
    said = scores.probabilities(spec.head, arrays, spec.temperature, features)
    kept = tensors.load(context.storage.fetch(f"{done['prefix']}/{bundle.REFERENCE}"))
    looks = reference.unpack(kept, features.shape[1], said.shape[1])
    assert looks.num_items == len(features)
    assert looks.labels_C.tolist() == np.bincount(said.argmax(1), minlength=said.shape[1]).tolist()
    np.testing.assert_allclose(looks.mean_D, features.mean(0), rtol=1e-2, atol=1e-2)
    assert (said.argmax(1) == labels).mean() == pytest.approx(done["metrics"]["test_accuracy"], abs=0.02)


def test_a_full_report_compares_with_a_network_from_scratch(home):
    context = attempt(home, "full", {"method": "linear_probe"}, Wire(), report_mode="full")
    report = transfer_factories.whole(context, transfer.run(context))
    scratch = report["baselines"]["scratch"]
    assert scratch["low"] <= scratch["value"] <= scratch["high"]
    assert report["verdict"] == report["verdicts"]["vs_scratch"]
    evidence = report["verdict_evidence"]["vs_scratch"]
    expected = "positive" if evidence["low"] > 0 else "negative" if evidence["high"] < 0 else "none"
    assert report["verdict"] == expected
    assert report["gain"]["over"] == "scratch"
    curve = report["curve"]
    sizes = [point["num_samples"] for point in curve["points"]]
    num_learned = report["data"]["splits"]["train"] + report["data"]["splits"]["val"]
    assert sizes == [round(share * num_learned) for share in (0.1, 0.25, 0.5, 1)]
    assert 0 < curve["aulc"] < 1
    # Ten seconds from scratch on 32 images of each class: which of the two curves is above is not ours to say.
    assert (curve["label_multiplier"] is None) == ("label_multiplier" in curve["reasons"])
    more = report["forecast"]["more_images"]
    assert {row["label"] for row in more} == {row["label"] for row in report["per_class"]}


@pytest.mark.parametrize("method", ["linear_probe", "few_shot"])
def test_what_is_foretold_before_training_stands_beside_what_was_found(home, method):
    wire = Wire()
    done = transfer.run(attempt(home, f"foretold-{method}", {"method": method}, wire))
    told, metrics = done["report"]["forecast"], done["metrics"]
    assert told["found"] == metrics["test_accuracy"]
    assert told["error"] == pytest.approx(told["found"] - told["expected"])
    assert told["inside"] == (told["low"] <= told["found"] <= told["high"])
    assert told["low"] < told["expected"] < told["high"]
    splits = done["report"]["data"]["splits"]
    assert (told["num_images"], told["num_test"]) == (splits["train"] + splits["val"], metrics["num_test"])
    assert [metrics[f"forecast_{name}"] for name in ("accuracy", "low", "high")] == [
        told[name] for name in ("expected", "low", "high")
    ]
    assert told["more_images"] is None
    assert done["report"]["curve"] is None
    events = [event for event in wire.seen if "event" in event]
    places = [number for number, row in enumerate(events) if row["event"]["message"].startswith("forecast: test")]
    trained = [number for number, row in enumerate(events) if "cross-validated accuracy" in row["event"]["message"]]
    assert len(places) == 1  # the baseline on the same backbone is not foretold again
    assert places[0] < trained[0]
    assert events[places[0]]["event"]["type"] == "log"
    assert events[places[0]]["event"]["data"]["forecast_accuracy"] == told["expected"]


def test_labels_of_the_test_split_do_not_change_what_is_foretold(home):
    context = attempt(home, "blind", {"method": "linear_probe"}, Wire())
    index = transfer.load(context, context.document.dataset)
    task, test = transfer.make_task(context, index), index.rows_of("test")
    told = []
    for labels_T in (task.labels_N[test], task.labels_N[test][::-1]):
        labels_N = task.labels_N.copy()
        labels_N[test] = labels_T
        foresight = Foresight(len(test), advise=True, unit=False)
        candidate = linear_probe.run(recipes.LinearProbe(), replace(task, labels_N=labels_N, foresee=foresight))
        told.append(foresight.of(candidate))
    assert told[0] is not None
    assert told[0] == told[1]


def test_a_backbone_without_weights_names_those_that_can_be_had(home):
    context = attempt(home, "offline", {"method": "linear_probe"}, Wire(), backbone="torchvision/resnet152")
    offline = replace(context, settings=Settings(home=home, offline=True))
    with pytest.raises(JobFailure, match=LITE0) as caught:
        transfer.run(offline)
    assert caught.value.code == "weights_unavailable"


def test_an_own_backbone_comes_out_of_storage_whole(home):
    context = attempt(home, "own", {"method": "linear_probe"}, Wire(), backbone="user/mine")
    lite0 = sources.open_backbone(context, LITE0)
    prefix = f"backbones/default/{lite0.digest}"
    for path in lite0.folder.iterdir():
        context.storage.put(f"{prefix}/{path.name}", path)
    row = {"prefix": prefix, "backbone": {"name": "user/mine"}}
    document = context.document.model_copy(update={"user_backbones": [row]})
    for _ in range(2):
        found = sources.open_backbone(replace(context, document=document), "user/mine")
        assert found.digest == lite0.digest
        assert found.folder == home / "backbones" / lite0.digest
        assert found.graph.read_bytes() == lite0.graph.read_bytes()
    assert [path.name for path in (home / "backbones").iterdir()] == [lite0.digest]
