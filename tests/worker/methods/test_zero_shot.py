"""Zero-shot transfers from a recipe to a stored bundle, on a starter backbone and the demo's drawings."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.artifact import bundle, predicted, preprocess
from app.artifact.spec import load as load_spec
from app.errors import JobFailure
from app.serving.runtime import Runtime, Session
from app.settings import Settings
from app.storage import FolderStorage
from tests.conftest import COMPUTE_THREADS
from tests.worker.transfer_factories import Wire, store
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument, JobDocument
from worker.attempt.progress import Reporter
from worker.backbones import text
from worker.backbones.exposure import exposure, singular
from worker.evaluate import class_folds
from worker.methods import zero_shot
from worker.prepare import centre, sources

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "data" / "emoji.zip"
LITE0, MOBILENET = "timm/tf_efficientnet_lite0", "torchvision/mobilenet_v2"
DEMO_CLASSES = (
    "animal_mammal", "clothing", "electronics", "face", "fruit_vegetable", "hand", "heart", "meal", "time",
    "transport_ground",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home with the demo's images stored; features are extracted by whichever test comes first."""
    folder = tmp_path_factory.mktemp("home")
    store(attempt(folder, "ingest", {}, with_dataset=True), DEMO)
    return folder


def attempt(home, name, recipe, *, with_dataset=False, backbone=LITE0) -> RunContext:
    dataset = DatasetDocument(
        id="ds_1", prefix="datasets/default/ds_1", task="classification", digest="d" * 64, seed=0, classes=[],
        splits={"train": 224, "val": 32, "test": 64},
    )  # fmt: skip
    document = JobDocument(
        id=f"job_{name}", project="default", attempt=1, kind="transfer", recipe={"method": "zero_shot", **recipe},
        seed=0, report_mode="fast", model_name="m", backbone=backbone, user_backbones=[],
        dataset=dataset if with_dataset else None, inputs={},
    )  # fmt: skip
    scratch = home / name
    scratch.mkdir()
    settings = Settings(home=home, compute_threads=COMPUTE_THREADS)
    return RunContext(settings, FolderStorage(home / "storage"), Reporter(Wire()), document, scratch, "cpu")


def named(*names):
    return {"classes": [{"name": name} for name in names]}


def test_a_job_without_a_dataset_leaves_a_whole_bundle_and_no_figures(tmp_path) -> None:
    context = attempt(tmp_path, "bare", named("kindness", "daisy", "sorrow"))
    done = transfer.run(context)
    assert done["metrics"] == {}
    report = done["report"]
    assert [report[name] for name in ("verdict", "gain", "data", "curve", "domain")] == [None] * 5
    assert set(report["baselines"].values()) == set(report["verdicts"].values()) == {None}
    assert report["details"]["approach"] == "combined"
    assert report["details"]["centre"]["what"] == centre.WHAT
    assert report["backbone_exposure"]["classes"] == [
        {
            "name": "daisy",
            "pretraining_class": "daisy",
            "by": "name",
            "cosine": pytest.approx(1, abs=1e-5),
            "num_pretraining_classes": 1,
        }
    ]
    folder = context.storage.fetch(f"{done['prefix']}/{bundle.SPEC}").parent
    spec = load_spec((folder / bundle.SPEC).read_bytes())
    shared = spec.files[bundle.BACKBONE].key
    assert shared is not None
    bundle.verify(folder, {bundle.BACKBONE: context.storage.fetch(shared)})
    assert (spec.dataset, spec.calibrated, spec.head, spec.labels) == (
        None,
        False,
        "text",
        ("kindness", "daisy", "sorrow"),
    )
    assert spec.parity.ok
    assert spec.parity.num_samples == 16
    assert predicted.read(folder / bundle.PREDICTIONS).ids == []
    assert json.loads((folder / bundle.REPORT).read_text()) == report
    assert sum(file.size_bytes for file in spec.files.values() if file.key is None) < 8 * 2**20


@pytest.mark.parametrize(("approach", "kind"), [("combined", "text"), ("conse", "text"), ("head_map", "cosine")])
def test_what_is_published_knows_drawings_by_name_alone(tmp_path, approach, kind) -> None:
    """Three kinds of drawings that differ plainly; by chance a third would be right."""
    context = attempt(tmp_path, approach, {**named("heart", "bus", "clock"), "approach": approach})
    done = transfer.run(context)
    assert done["spec"]["head"] == kind
    backbone = sources.open_backbone(context, LITE0)
    head = context.storage.fetch(f"{done['prefix']}/{bundle.HEAD}").read_bytes()
    runtime = Runtime(Session(backbone.graph, 2), Session(head, 1))
    right = []
    with zipfile.ZipFile(DEMO) as archive:
        for number, folder in enumerate(("heart", "transport_ground", "time")):
            names = sorted(name for name in archive.namelist() if f"{folder}/" in name and not name.endswith("/"))
            images = [preprocess.load(archive.read(name), backbone.preprocess, 2**20) for name in names]
            right += (runtime.run(np.stack(images)).probabilities.argmax(1) == number).tolist()
    assert np.mean(right) > 0.5


def test_same_recipe_same_bytes(tmp_path) -> None:
    first, second = (attempt(tmp_path, name, named("cats", "dogs")) for name in ("one", "two"))
    heads = [context.storage.fetch(f"{transfer.run(context)['prefix']}/{bundle.HEAD}") for context in (first, second)]
    assert heads[0].read_bytes() == heads[1].read_bytes()


def test_the_combined_score_is_the_sum_of_both_at_equal_spread(tmp_path) -> None:
    context = attempt(tmp_path, "sum", named("heart", "bus", "clock"))
    backbone = sources.open_backbone(context, LITE0)
    encoder, known = text.find([context.settings.prepared]), zero_shot.read_classifier(backbone)
    middle, vectors = centre.read(backbone), encoder.encode(["heart", "bus", "clock"])
    features = np.random.default_rng(0).random((5, backbone.feature_dim), np.float32)
    parts = [zero_shot.from_text(one, known, encoder, vectors, middle)[0] for one in zero_shot.FROM_TEXT]
    combined, rows, text_only = (part.logits(features) / part.temperature for part in parts)
    np.testing.assert_allclose(combined, rows + text_only, atol=1e-5)
    assert known is not None
    likely = known.rows_KD - known.rows_KD.mean(0)
    assert np.std(parts[1].logits(likely + middle.mean_D) / parts[1].temperature, axis=1).max() > 1


def test_other_names_for_a_pretraining_class_are_noticed() -> None:
    encoder = text.find([Settings().prepared])
    asked = ["Great_White_Shark", "tigers", "kindness", "bananas", "strawberries", "cats", "dogs"]
    found = {row["name"]: row for row in exposure(asked, encoder)}
    assert {name: row["by"] for name, row in found.items()} == {
        "Great_White_Shark": "name", "tigers": "plural", "bananas": "plural", "strawberries": "plural",
        "cats": "includes", "dogs": "includes",
    }  # fmt: skip
    assert found["dogs"]["num_pretraining_classes"] == 118
    assert "cat" in found["cats"]["pretraining_class"]
    # Neither its last word nor the encoder makes a dog of it.
    assert "hot dog" not in found["dogs"]["pretraining_class"]


def test_names_that_are_one_to_the_encoder_are_refused(tmp_path) -> None:
    """Signs that it has no words for: all of them are the unknown token."""
    with pytest.raises(JobFailure, match="'☂' and '☃'") as caught:
        transfer.run(attempt(tmp_path, "alike", named("☂", "☃", "dog")))
    assert caught.value.code == "classes_alike"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sports cars", "sports car"), ("berries", "berry"), ("foxes", "fox"), ("glass", "glass"), ("bus", "bu"),
     ("torches", "torch"), ("is", "is"), ("", "")],
)  # fmt: skip
def test_plurals_are_compared_as_singulars(name, expected) -> None:
    assert singular(name) == expected


def test_a_backbone_without_its_classifier_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(JobFailure, match=MOBILENET) as caught:
        transfer.run(attempt(tmp_path, "none", named("cats", "dogs"), backbone=MOBILENET))
    assert caught.value.code == "weights_unavailable"


def test_seen_classes_are_scored_and_named_so(home) -> None:
    recipe = named(*DEMO_CLASSES[:8], "insect", "ball")
    done = transfer.run(attempt(home, "mixed", recipe, with_dataset=True))
    metrics, report = done["metrics"], done["report"]
    assert "test_accuracy" not in metrics
    assert metrics["test_seen_accuracy_low"] < metrics["test_seen_accuracy"] < metrics["test_seen_accuracy_high"]
    assert metrics["test_seen_accuracy"] > 0.2
    assert report["details"]["seen"] == list(DEMO_CLASSES[:8])
    assert report["details"]["unseen"] == ["insect", "ball"]
    tried = {row["approach"]: row for row in report["details"]["tried"]}
    assert set(tried) == {"combined", "eszsl", "devise"}
    best = max(tried.values(), key=lambda row: row["harmonic"])
    assert report["details"]["approach"] == best["approach"]
    served = [one for one in report["decisions"] if one["outcome"] == "served"]
    assert [one["step"] for one in served] == [best["approach"]]
    # Text alone has no strengths that could have been chosen on the folds.
    assert {one["step"]: "optimistic" in one["reason"] for one in report["decisions"]} == {
        "combined": False, "eszsl": True, "devise": True,
    }  # fmt: skip
    assert "ds_1" in report["details"]["centre"]["what"]
    rows = predicted.read(home / "storage" / done["prefix"] / bundle.PREDICTIONS)
    right = [label == predicted for label, predicted in zip(rows.labels, rows.predicted, strict=True)]
    assert metrics["test_seen_accuracy"] == pytest.approx(np.mean(right))
    assert set(rows.labels) == set(DEMO_CLASSES[:8])


def test_classes_that_were_never_seen_are_told_by_attributes(home) -> None:
    """On a backbone that has no classifier of its own: attributes and images of others are enough."""
    numbers = np.random.default_rng(3).normal(size=(len(DEMO_CLASSES), 6))
    numbers[1] = numbers[0] + 0.1  # what a mammal is not told apart by
    classes = [{"name": name, "attributes": row.tolist()} for name, row in zip(DEMO_CLASSES, numbers, strict=True)]
    classes.append({"name": "new", "attributes": (numbers[2] + numbers[3]).tolist()})
    context = attempt(home, "attributes", {"classes": classes}, with_dataset=True, backbone=MOBILENET)
    done = transfer.run(context)
    assert done["report"]["details"]["approach"] in ("eszsl", "devise")
    assert done["report"]["details"]["unseen"] == ["new"]
    assert done["metrics"]["test_seen_accuracy"] > 1 / len(classes)
    large = [{**one, "attributes": [value * 1e200 for value in one["attributes"]]} for one in classes]
    again = transfer.run(attempt(home, "large", {"classes": large}, with_dataset=True, backbone=MOBILENET))
    assert again["metrics"]["test_seen_accuracy"] == done["metrics"]["test_seen_accuracy"]


def test_a_dataset_may_lend_its_mean_alone(home) -> None:
    done = transfer.run(attempt(home, "mean", {**named("insect", "ball"), "approach": "combined"}, with_dataset=True))
    assert done["metrics"] == {}
    assert done["report"]["details"]["centre"] == {
        "what": "train and validation images of the dataset ds_1",
        "num_images": done["report"]["details"]["centre"]["num_images"],
    }
    shipped = {**named("insect", "ball"), "approach": "combined", "centre": "shipped"}
    other = transfer.run(attempt(home, "shipped", shipped, with_dataset=True))
    assert other["report"]["details"]["centre"]["what"] == centre.WHAT


def test_no_image_of_a_left_out_class_is_learned_from() -> None:
    labels = np.repeat(np.arange(7), 10)
    folds = class_folds.cut(labels, np.arange(70), 7, 0)
    assert sorted(np.concatenate([np.flatnonzero(fold.out_K) for fold in folds])) == list(range(7))
    for fold in folds:
        assert fold.out_K.sum() >= 2
        assert not np.isin(labels[np.concatenate([fold.learn, fold.held])], np.flatnonzero(fold.out_K)).any()
        assert len(np.intersect1d(fold.learn, fold.held)) == 0
        assert len(fold.left) + len(fold.held) + len(fold.learn) == 70
    assert class_folds.cut(labels[:30], np.arange(30), 7, 0) == []


def test_the_penalty_is_the_best_of_all_that_change_something() -> None:
    """Scores of seen classes are 2 too high; a loop over many penalties finds nothing better."""
    numbers = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 25)
    fold = class_folds.cut(labels, np.arange(100), 4, 0)[0]
    asked = np.concatenate([fold.left, fold.held])
    scores = numbers.normal(size=(len(asked), 4)) + 3 * (labels[asked][:, None] == np.arange(4)) + 2 * ~fold.out_K
    penalty, harmonic = class_folds.stacking([scores], labels, [fold])

    def slow(value):
        parts = []
        for rows in (range(len(fold.left)), range(len(fold.left), len(asked))):
            hits: dict[int, list[bool]] = {}
            for row in rows:
                lowered = [scores[row, k] - (0 if fold.out_K[k] else value) for k in range(4)]
                hits.setdefault(int(labels[asked[row]]), []).append(int(np.argmax(lowered)) == labels[asked[row]])
            parts.append(np.mean([np.mean(one) for one in hits.values()]))
        return 2 * parts[0] * parts[1] / (parts[0] + parts[1]) if min(parts) > 0 else 0.0

    assert harmonic == pytest.approx(slow(penalty))
    assert penalty > 0.5
    assert harmonic > slow(0.0)
    assert harmonic >= max(slow(value) for value in np.linspace(0, 6, 61)) - 0.03


def test_the_mean_is_shipped_once_and_proven_by_its_record(tmp_path) -> None:
    found = sources.open_backbone(attempt(tmp_path, "mean", named("a", "b")), LITE0)
    folder = tmp_path / found.digest
    folder.mkdir()
    for path in found.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    bare = {key: value for key, value in found.record.items() if key != "centre"}
    before = replace(found, folder=folder, record=bare)
    with pytest.raises(JobFailure, match="prepare it again"):
        centre.read(before)
    few = tmp_path / "few.zip"
    with zipfile.ZipFile(DEMO) as archive, zipfile.ZipFile(few, "w") as out:
        for name in [name for name in archive.namelist() if not name.endswith("/")][:3]:
            out.writestr(name, archive.read(name))
    made = centre.add(before, few)
    assert centre.read(made).num_images == 3
    np.testing.assert_allclose(centre.read(made).mean_D, centre.features(found, few).mean(0), atol=1e-6)
    assert centre.add(made) is made
