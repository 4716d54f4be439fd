"""The advise job on real small datasets and a tiny graph: damage is found, and clean data is left alone."""

import io
import json
import random
import zipfile

import numpy as np
import pytest
from PIL import Image

from app import advice as catalogue
from app.settings import Settings
from app.storage import FolderStorage
from tests import factories
from tests.worker.test_align import DARK, document, store
from tests.worker.transfer_factories import Wire
from worker import advise
from worker.attempt.context import RunContext
from worker.attempt.document import JobDocument
from worker.attempt.progress import Reporter

SPLITS = ["train", "train", "val", "test"]


def split(files, first=0):
    """The same files with an upload's own splits."""
    return {f"{SPLITS[number % 4]}/{name}": data for number, (name, data) in enumerate(files.items(), first)}


def lighter(data):
    """The same picture saved again, a little lighter and as JPEG: no byte is the same.

    Colours at full resolution: these pictures are noise in colour, of which halving it would leave little.
    """
    image = Image.open(io.BytesIO(data)).convert("RGB")
    out = io.BytesIO()
    image.point(lambda level: min(255, level + 2)).save(out, "JPEG", quality=97, subsampling=0)
    return out.getvalue()


PLAIN = factories.pictures(40)
# Wrong labels, under names that tell what they are.
WRONG = {"blue": "green", "green": "red", "red": "blue"}
FLIPPED = {
    f"{given}/was_{colour}.png": factories.png(factories.COLOURS[colour], seed=9000 + place)
    for place, (colour, given) in enumerate(WRONG.items())
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    factories.prepared(folder / "backbones")
    store(folder, "ds_plain", PLAIN)
    store(folder, "ds_flipped", {**PLAIN, **FLIPPED})
    files = split(PLAIN)
    tested = [name for name in files if name.startswith("test/")][:3]
    leaked = {
        f"train/{name.split('/')[1]}/leaked_{place}.jpg": lighter(files[name]) for place, name in enumerate(tested)
    }
    store(folder, "ds_leaked", {**files, **leaked})
    names = [name.partition("/")[0] for name in PLAIN]
    random.Random(0).shuffle(names)
    store(folder, "ds_shuffled", {f"{name}/{place}.png": data for place, (name, data) in
                                  enumerate(zip(names, PLAIN.values(), strict=True))})  # fmt: skip
    store(folder, "ds_unlabelled", {f"all/{place}.png": data for place, data in enumerate(PLAIN.values())},
          format="unlabelled")  # fmt: skip
    two = {name: data for name, data in PLAIN.items() if not name.startswith("blue")}
    store(folder, "ds_two", {**two, "red/was_green.png": factories.png(factories.COLOURS["green"], seed=7777)})
    store(folder, "ds_dark", factories.pictures(30, DARK))
    store(folder, "ds_other", factories.pictures(30, first=500))
    one = factories.png(factories.COLOURS["red"], seed=1)
    store(folder, "ds_one_picture", {f"{name}/{place}.png": one for name in "ab" for place in range(16)})
    store(folder, "ds_few", factories.pictures(3, first=700))
    return folder


@pytest.fixture
def advised(home, tmp_path):
    """Runs one job on a dataset; (result, metrics, thumbnails)."""

    def run(dataset, against=None, seed=0, backbone=factories.BACKBONE):
        scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        study = f"adv_{scratch.name}"
        job = JobDocument(
            id=f"job_{scratch.name}", project="default", attempt=1, kind="advise", recipe=None, seed=seed,
            report_mode="fast", model_name=None, backbone=backbone, user_backbones=[], dataset=document(dataset),
            inputs={"study_id": study}, datasets={"against": document(against)} if against else {},
        )  # fmt: skip
        settings = Settings(home=home, compute_threads=1, prepared=home / "none")
        storage = FolderStorage(home / "storage")
        context = RunContext(settings, storage, Reporter(Wire()), job, scratch, "cpu")
        done = advise.run(context)
        json.dumps(done, allow_nan=False)
        path = storage.fetch(f"studies/default/{study}/{catalogue.THUMBNAILS}")
        with zipfile.ZipFile(path) as archive:
            pictures = {name: archive.read(name) for name in archive.namelist()}
        return done["result"], done["metrics"], pictures

    return run


def of_kind(result, kind):
    return [one for one in result["findings"] if one["kind"] == kind]


def paths(result, found):
    return {result["samples"][name]["path"] for one in found for name in one["samples"]}


def test_clean_data_gives_few_findings(advised):
    """False positives: none but at most one picture in fifty that is called far."""
    result, metrics, _ = advised("ds_plain")
    assert result["counts"] == {
        "label_error": 0, "confused_classes": 0, "small_class": 0, "imbalanced": 0, "near_duplicate": 0,
        "outlier": metrics["num_outlier"],
    }  # fmt: skip
    assert metrics["num_outlier"] <= 120 / 50
    assert result["labels"]["fit"] is True
    assert result["labels"]["estimated_share_wrong"] == 0
    assert (result["not_searched"], result["drift"], result["labels_reason"]) == ({}, None, None)


def test_of_one_picture_the_copies_are_found_and_labels_left_alone(advised):
    result, metrics, _ = advised("ds_one_picture")
    assert metrics["num_near_duplicate"] > 0
    assert "copies of one" in result["labels_reason"]
    assert "copies of one" in result["not_searched"]["label_error"]


def test_wrong_labels_are_found_in_all_splits_with_what_they_should_be(advised):
    result, metrics, pictures = advised("ds_flipped")
    found = of_kind(result, "label_error")
    assert paths(result, found) == set(FLIPPED)
    assert metrics["num_label_error"] == 3
    for one in found:
        (name,) = one["suggestion"]["samples"]
        assert one["suggestion"]["action"] == "relabel"
        assert one["suggestion"]["label"] in result["samples"][name]["path"]
        assert one["label"] == result["samples"][name]["label"]
        assert f"{name}.jpg" in pictures
    # Explained as wrong labels, they are no outliers, and no confusion of classes.
    assert paths(result, of_kind(result, "outlier")).isdisjoint(FLIPPED)
    assert result["counts"]["confused_classes"] == 0


def test_test_images_that_leaked_into_train_are_found(advised):
    result, _, _ = advised("ds_leaked")
    found = of_kind(result, "near_duplicate")
    assert len(found) == 3
    for one in found:
        assert one["data"]["across_test"]
        (changed,) = one["suggestion"]["samples"]
        assert result["samples"][changed]["split"] == "train"
        assert "leaked_" in result["samples"][changed]["path"]
        assert one["data"]["same_bytes"] is False


def test_shuffled_labels_are_told_as_what_they_are(advised):
    result, metrics, _ = advised("ds_shuffled")
    assert result["labels"]["fit"] is False
    assert result["counts"]["label_error"] is None
    assert result["not_searched"]["label_error"] == result["labels_reason"]
    assert "the labels do not fit the images" in result["labels_reason"]
    assert "num_label_error" not in metrics
    assert not of_kind(result, "label_error")


def test_without_labels_images_are_compared(advised):
    result, _, _ = advised("ds_unlabelled", against="ds_dark")
    assert set(result["not_searched"]) == {"label_error", "confused_classes", "small_class", "imbalanced"}
    assert result["counts"]["outlier"] is not None
    assert result["counts"]["near_duplicate"] == 0
    assert result["labels"] is None
    assert result["drift"]["images_differ"] is True
    assert f"their {result['drift']['num_components']} leading" in result["drift"]["space"]
    assert "without" in result["drift"]["labels_reason"]


def test_two_classes(advised):
    result, _, _ = advised("ds_two")
    assert paths(result, of_kind(result, "label_error")) == {"red/was_green.png"}
    assert result["labels"]["fit"] is True


def test_drift_is_found_where_there_is_some_and_not_elsewhere(advised):
    result, _, pictures = advised("ds_plain", against="ds_dark")
    assert result["drift"]["images_differ"] is True
    told = of_kind(result, "drift")
    assert {one["data"]["test"] for one in told} >= {"images", "class"}
    # Pictures of both: what is here and not there, and the other way round.
    there = {name for one in told for name in one["samples_against"]}
    assert there == set(result["samples_against"]) != set()
    assert {f"{catalogue.AGAINST}{name}.jpg" for name in there} <= set(pictures)
    assert result["num_thumbnails"] == len(pictures)
    for name in there:
        with Image.open(io.BytesIO(pictures[f"{catalogue.AGAINST}{name}.jpg"])) as picture:
            assert np.asarray(picture).mean() < 80
    same, _, _ = advised("ds_plain", against="ds_other")
    assert same["drift"]["images_differ"] is False
    assert same["counts"]["drift"] == 0
    assert same["drift"]["message"].startswith("no drift was found")


def test_too_few_images_are_told_and_nothing_is_made_up(advised):
    result, _, pictures = advised("ds_few", against="ds_plain")
    reasons = result["not_searched"]
    assert set(reasons) == {"label_error", "confused_classes", "outlier", "drift"}
    assert all(reason.startswith("expected at least") for reason in reasons.values())
    assert result["counts"]["small_class"] == 3
    assert result["drift"] is None
    # What is shown are the small classes, whole.
    shown = {name for one in of_kind(result, "small_class") for name in one["samples"]}
    assert {name.removesuffix(".jpg") for name in pictures} == shown == set(result["samples"])
    assert len(shown) == 9


def test_the_same_question_has_the_same_answer(advised):
    first, second = (advised("ds_flipped", against="ds_other") for _ in range(2))
    assert first == second


def test_pictures_are_small(advised):
    _, _, pictures = advised("ds_flipped")
    for data in pictures.values():
        image = Image.open(io.BytesIO(data))
        assert image.format == "JPEG"
        assert max(image.size) <= 96


def test_labels_of_another_kind_are_left_alone():
    from tests.worker.advice import samples
    from worker.data import labels

    sets = labels.of_name_sets("label", [["a"], ["a", "b"]])
    several = advise.labelled(samples.index(["a", "b"], ["train"] * 2, columns=(sets,)))
    assert "expected one class per image" in several.reason
    partly = advise.labelled(samples.index(["a", None, "b"], ["train"] * 3))
    assert (partly.rows.tolist(), partly.labels.tolist(), partly.counts.tolist()) == ([0, 2], [0, 1], [1, 1])
    assert np.array_equal(advise.labelled(samples.index([None] * 3, ["train"] * 3)).rows, [])
