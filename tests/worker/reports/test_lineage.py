"""What versions and own backbones learned from, and test items that they had met before."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from app.artifact import bundle, tensors
from app.artifact import seen as artifact
from app.artifact.predicted import Predictions
from app.artifact.seen import Seen
from app.errors import JobFailure
from tests import factories
from tests.worker import transfer_factories
from tests.worker.study_factories import Lab, side
from worker import transfer
from worker.auto import steps
from worker.auto.budget import Budget
from worker.backbones import networks
from worker.contract.candidate import Candidate
from worker.domains import validator
from worker.evaluate.sections import Evaluation
from worker.methods import target_labels
from worker.prepare import sources
from worker.reports import lineage

CNN = "timm/test_efficientnet"
SHADES = {"rose": (190, 110, 120), "moss": (150, 150, 110), "mauve": (165, 120, 150)}


def seen(what: str, shas: list[int], looks: list[int] | None = None, ids: list[int] | None = None) -> Seen:
    num = len(shas)
    wide = np.zeros((num, 32), np.uint8)
    wide[:, 0] = shas
    names = np.zeros((num, 10), np.uint8)
    names[:, 0] = ids or [0] * num
    return Seen(what, f"ds_{what}", "", names, wide, np.array(looks or [0] * num, np.uint64))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A small real network, and three datasets: shades, a child with more of them, other pictures."""
    found = Lab(tmp_path_factory.mktemp("home"))
    network = transfer_factories.cnn()
    place = found.folder / "backbones"
    shutil.copytree(network.folder, place / network.digest)
    pointer = place / "names" / f"{CNN}.json"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text(json.dumps({"name": CNN, "digest": network.digest}))
    found.store("ds_shades", factories.pictures(20, SHADES))
    found.store("ds_child", factories.pictures(5, SHADES, first=100), base="ds_shades")
    found.store("ds_other", factories.pictures(12, SHADES, first=700))
    found.tuned = found.transfer("ds_shades", "fine_tune", backbone=CNN, recipe={"scope": "norm", "epochs": 2})
    if bundle.STATE not in found.tuned["spec"]["files"]:
        pytest.fail("the training was to change the network; it served the frozen one")
    return found


def index(lab, name):
    context = lab.context("evaluate", name)
    return transfer.load(context, context.document.dataset)


def test_a_bundle_remembers_its_training_items_and_no_test_item(lab):
    made = lab.transfer("ds_shades")
    (found,) = lineage.of_version(lab.storage, made["prefix"], made["spec"]["files"])
    assert (found.what, found.id, found.backbone) == ("dataset", "ds_shades", "")
    rows = index(lab, "ds_shades")
    pool = np.flatnonzero(rows.split != 2)
    assert {one.tobytes().hex() for one in found.sha256} == {one.decode() for one in rows.sha256[pool]}
    assert {f"s_{one.tobytes().hex()}" for one in found.ids} == {one.decode() for one in rows.ids[pool]}
    assert found.phash.tolist() == rows.phash[pool].tolist()
    assert lab.storage.fetch(f"{made['prefix']}/{bundle.SEEN}").stat().st_size < 60 * len(pool) + 1000


def test_test_items_of_a_child_stay_test_items(lab):
    old, child = index(lab, "ds_shades"), index(lab, "ds_child")
    assert set(old.ids[old.rows_of("test")]) <= set(child.ids[child.rows_of("test")])
    items = lab.transfer("ds_child")["report"]["data"]["lineage"]["items"]
    assert items["num_test"] == len(child.rows_of("test"))
    assert (items["num_seen_before"], items["seen_in"]) == (0, [])


@pytest.fixture
def serving(monkeypatch):
    """Has an adaptation serve the candidate at a place, whatever the validator thinks of it."""
    choose = validator.choose
    return lambda place: monkeypatch.setattr(validator, "choose", lambda found: replace(choose(found), index=place))


def test_an_adaptation_says_that_it_was_fitted_to_what_it_is_scored_on(lab, serving):
    serving(1)
    recipe = {"source": "ds_shades", "candidates": ["z_score"]}
    done = lab.transfer("ds_other", "adapt", recipe=recipe, datasets={"source": "ds_shades"})
    items = done["report"]["data"]["lineage"]["items"]
    assert (items["num_test"], items["num_seen_before"], items["num_seen_without_labels"]) == (36, 0, 36)
    assert "warnings" not in done["report"]
    found = lineage.of_version(lab.storage, done["prefix"], done["spec"]["files"])
    assert [(one.what, one.id) for one in found] == [("source", "ds_shades"), ("unlabelled", "ds_other")]


def named(lab, done):
    found = lineage.of_version(lab.storage, done["prefix"], done["spec"]["files"])
    told = done["report"]["data"]["lineage"]["taught_by"]
    assert [(one["what"], one["id"]) for one in told] == [(one.what, one.id) for one in found]
    return [(one.what, one.id) for one in found]


def test_a_source_that_was_not_joined_has_taught_nothing(lab, monkeypatch):
    monkeypatch.setattr(steps, "TUNED", ())
    recipe = {"source": "ds_shades", "max_minutes": 0.02}
    monkeypatch.setattr(Budget, "joint", lambda *_: 3600.0)
    done = lab.transfer("ds_other", "auto", backbone=CNN, recipe=recipe, datasets={"source": "ds_shades"})
    assert done["report"]["not_computed"]["domain"].startswith("its forecast")
    assert named(lab, done) == [("dataset", "ds_other")]
    assert done["spec"]["source"] is None
    card = lab.storage.fetch(f"{done['prefix']}/{bundle.README}").read_text()
    assert "ds_shades" not in card.partition("## Data")[2].partition("##")[0]
    leaks = lab.evaluate("ds_shades", done, split="all")["leakage"]
    assert (leaks["num_items"], leaks["num_any"], leaks["seen_in"]) == (60, 0, [])


@pytest.mark.parametrize(
    ("way", "taught"),
    [
        ("source_only", [("source", "ds_shades")]),
        ("target_only", [("dataset", "ds_other")]),
        ("source_and_target, target x 1", [("source", "ds_shades"), ("dataset", "ds_other")]),
    ],
)
def test_a_version_names_what_its_own_way_learned_from(lab, way, taught, monkeypatch):
    ways = target_labels._ways
    monkeypatch.setattr(target_labels, "_ways", lambda data: [one for one in ways(data) if one.name == way])
    recipe = {"source": "ds_shades", "target_labels": True}
    done = lab.transfer("ds_other", "adapt", recipe=recipe, datasets={"source": "ds_shades"})
    assert done["report"]["served"]["what"] == way
    assert named(lab, done) == taught
    assert (done["spec"]["source"] is None) == (way == "target_only")


def test_a_sources_probe_is_not_fitted_to_the_images_that_it_is_scored_on(lab, serving):
    """And what it looked at is found again: a reproduction scores the same items."""
    serving(0)
    recipe = {"source": "ds_shades", "candidates": ["z_score"]}
    fields = {"recipe": {"method": "adapt", **recipe}, "datasets": {"source": "ds_shades"}}
    done = lab.transfer("ds_other", "adapt", **{**fields, "recipe": recipe})
    assert named(lab, done) == [("source", "ds_shades")]
    items = done["report"]["data"]["lineage"]["items"]
    assert (items["num_test"], items["num_seen_before"], items["num_seen_without_labels"]) == (36, 0, 0)
    original = {"job": "job_0", **side(done)}
    inputs = {"mode": "reproduce", "original": original}
    again = lab.run("evaluate", "ds_other", inputs=inputs, **fields)["result"]
    assert (again["verdict"], again["predictions"]["num_items"]) == ("identical", 36)


def test_a_model_without_data_was_tested_on_nothing(lab):
    """Half of a zero-shot job: the trace of a task without a dataset."""
    task = transfer.make_task(lab.context("transfer"), transfer.empty_index(), ("a", "b"))
    served = Candidate(
        method="zero_shot", name="", head=None, graph=None, backbone=task.backbone, shared=True, selection=None,
        features=None, reference=None, seconds=0.0, fold_accuracy=(), calibrated=False, trained_params=0,
    )  # fmt: skip
    found, unknown = lineage.teachers(task, served)
    none = Predictions([], [], [], [], [], np.empty((0, 2), np.float32))
    items = lineage.trace(task, found, unknown, Evaluation({}, {}, none, np.empty((0, 2), np.float32)))["items"]
    assert (found, unknown, items["num_test"], items["num_seen_before"]) == ((), None, 0, 0)


@pytest.fixture(scope="module")
def adopted(lab):
    """The tuned network as an own backbone."""
    done = lab.adopt("user/shades", lab.tuned, CNN)
    assert done["failure"] is None
    return done["document"]


def test_a_versions_network_becomes_a_backbone_with_the_same_features(lab, adopted):
    assert adopted["source"]["version"] == 1
    assert adopted["taught_by"] == [
        {"what": "dataset", "id": "ds_shades", "backbone": None,
         "num_items": int((index(lab, "ds_shades").split != 2).sum())},
    ]  # fmt: skip
    backbone = sources.open_backbone(lab.context("transfer", backbone="user/shades"), "user/shades")
    assert backbone.digest != transfer_factories.cnn().digest
    rows = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    graph = lab.storage.fetch(f"{lab.tuned['prefix']}/{bundle.BACKBONE}")
    from app.serving.runtime import Session

    served, own = Session(graph, 1).run(rows)[0], Session(backbone.graph, 1).run(rows)[0]
    np.testing.assert_allclose(own, served, atol=1e-4)
    # The state is the library's own, so it loads where Graft is not.
    state = networks.read_state(lab.storage.fetch(f"{lab.tuned['prefix']}/{bundle.STATE}"))
    assert set(state) == set(networks.restore(transfer_factories.cnn()).network.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_a_backbone_of_equal_weights_does_not_go_with_another_one(lab):
    one, two = (lab.adopt(f"user/{name}", lab.tuned, CNN)["document"] for name in ("first", "second"))
    lab.storage.delete(one["prefix"])
    left = sources.open_backbone(lab.context("transfer", backbone="user/second"), "user/second")
    assert (left.name, left.graph.is_file()) == ("user/second", True)
    assert two["prefix"] != one["prefix"]


def test_a_transfer_whose_test_items_taught_its_backbone_is_flagged(lab, adopted):
    taught = index(lab, "ds_shades")
    pictures, paths = factories.pictures(20, SHADES), [one.as_py() for one in taught.paths]
    again = {}
    for place, row in enumerate(np.flatnonzero(taught.split != 2)):
        again[f"{paths[row].split('/')[0]}/x{place}.png"] = pictures[paths[row]]
    lab.store("ds_again", again)
    done = lab.transfer("ds_again", backbone="user/shades")
    traced = done["report"]["data"]["lineage"]
    items = traced["items"]
    assert items["num_test"] == items["num_seen_before"] > 0
    (place,) = items["seen_in"]
    assert (place["id"], place["backbone"]) == ("ds_shades", "user/shades")
    assert place["num_by_sha256"] == place["num_items"] == items["num_by_sha256"] == items["num_test"]
    # One answer in all places: the flag, the counts, the metric with and without them.
    leaked = done["report"]["data"]["leakage"]
    assert leaked["num_copies"] == leaked["num_through_backbone"] == leaked["num_any"] == items["num_test"]
    assert leaked["accuracy_without_copies"] is None
    (flag,) = [flag for flag in done["report"]["flags"] if flag["code"] == "test_images_seen"]
    assert "before this job, by its backbone" in flag["message"]
    told = [event["message"] for event in lab.wire.events("log") if event["level"] == "warning"]
    (warning,) = done["report"]["warnings"]
    assert warning in told
    assert "through backbone user/shades" in warning
    card = lab.storage.fetch(f"{done['prefix']}/{bundle.README}").read_text()
    assert "measure memory too" in card
    # The chain is handed on: its own bundle names both teachers.
    found = lineage.of_version(lab.storage, done["prefix"], done["spec"]["files"])
    assert [(one.id, one.backbone) for one in found] == [("ds_again", ""), ("ds_shades", "user/shades")]


def saved_again(data: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def test_other_bytes_of_the_same_picture_are_recognised_while_its_dataset_is_there(lab, adopted):
    lab.store("ds_saved", {name: saved_again(data) for name, data in factories.pictures(20, SHADES).items()})
    done = lab.transfer("ds_saved", backbone="user/shades")
    items = done["report"]["data"]["lineage"]["items"]
    assert items["num_by_copy"] == items["num_seen_before"] > 0
    assert (items["num_by_id"], items["num_by_sha256"]) == (0, 0)
    # Once it is gone, hashes are all that is left of it: they look alike, and nobody can be sure.
    hidden = lab.folder / "storage/datasets/default/ds_shades"
    hidden.rename(hidden.with_name("gone"))
    items = lab.transfer("ds_saved", backbone="user/shades")["report"]["data"]["lineage"]["items"]
    hidden.with_name("gone").rename(hidden)
    assert (items["num_seen_before"], items["num_look_alike"] > 0) == (0, True)


def cropped(data: bytes) -> bytes:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    out = io.BytesIO()
    picture.crop((3, 2, picture.width - 3, picture.height - 4)).save(out, "PNG")
    return out.getvalue()


def textured(num: int, first: int) -> dict[str, bytes]:
    """Pictures with something to recognise: soft shapes of several sizes, no two alike."""
    found = {}
    for place, (shade, colour) in enumerate(SHADES.items()):
        for number in range(num):
            draws = np.random.default_rng((first, place, number))
            coarse = [(draws.uniform(-90, 90, (size, size, 3)) + colour).clip(0, 255) for size in (4, 9)]
            layers = [
                Image.fromarray(one.astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC) for one in coarse
            ]
            out = io.BytesIO()
            Image.blend(*layers, 0.4).save(out, "PNG")
            found[f"{shade}/{number}.png"] = out.getvalue()
    return found


def test_slight_crops_of_what_taught_the_backbone_are_recognised_by_features(lab, adopted):
    """Nobody has features of the teacher's pictures under the taught backbone until they are asked for."""
    lab.store("ds_soft", textured(20, 1))
    recipe = {"scope": "norm", "epochs": 2, "augment": "none"}
    tuned = lab.transfer("ds_soft", "fine_tune", backbone=CNN, recipe=recipe)
    assert bundle.STATE in tuned["spec"]["files"]
    lab.adopt("user/soft", tuned, CNN)
    taught = index(lab, "ds_soft")
    pictures, paths = textured(20, 1), [one.as_py() for one in taught.paths]
    learned = [paths[row] for row in np.flatnonzero(taught.split != 2)]
    lab.store("ds_cropped", {name: cropped(pictures[name]) for name in learned})
    items = lab.transfer("ds_cropped", backbone="user/soft")["report"]["data"]["lineage"]["items"]
    assert (items["num_by_id"], items["num_by_sha256"]) == (0, 0)
    assert items["num_by_phash"] > 0
    assert items["num_by_copy"] == items["num_seen_before"] == items["num_by_phash"]
    lab.store("ds_others", textured(12, 2))
    done = lab.transfer("ds_others", backbone="user/soft")
    assert done["report"]["data"]["lineage"]["items"]["num_seen_before"] == 0
    assert "warnings" not in done["report"]


def test_a_transfer_whose_test_items_nobody_has_met_is_not_flagged(lab, adopted):
    for dataset in ("ds_other", "ds_child"):
        done = lab.transfer(dataset, backbone="user/shades")
        assert done["report"]["data"]["lineage"]["items"]["num_seen_before"] == 0
        assert "warnings" not in done["report"]
        told = [event for event in lab.wire.events("log") if event["level"] == "warning"]
        assert {event["data"].get("code") for event in told} <= {flag["code"] for flag in done["report"]["flags"]}


def test_an_evaluation_sees_through_the_chain(lab, adopted):
    made = lab.transfer("ds_other", backbone="user/shades")
    leaked = lab.evaluate("ds_shades", made, split="all")["leakage"]
    assert leaked["num_learned_from"] == int((index(lab, "ds_shades").split != 2).sum())
    assert [row["backbone"] for row in leaked["seen_in"]] == ["user/shades"]
    assert leaked["unknown"] is None


def test_an_uploaded_backbone_is_doubted(lab, adopted):
    uploaded = {**{name: adopted[name] for name in ("prefix", "architecture")},
                "backbone": {**adopted["backbone"], "name": "user/uploaded"}}  # fmt: skip
    lab.own.append(uploaded)
    traced = lab.transfer("ds_other", backbone="user/uploaded")["report"]["data"]["lineage"]
    assert "backbone user/uploaded was uploaded" in traced["unknown"]


def test_weights_that_the_architecture_has_no_place_for_are_refused(lab, tmp_path):
    state = tensors.load(lab.storage.fetch(f"{lab.tuned['prefix']}/{bundle.STATE}"))
    name = next(iter(state))
    prefix = "bundles/default/odd/attempt-1"
    for key in list(lab.storage.list(lab.tuned["prefix"])):
        lab.storage.put(f"{prefix}/{key.rpartition('/')[2]}", lab.storage.fetch(key))
    path = tmp_path / "state"
    path.write_bytes(tensors.dump({**state, f"{name}_extra": state[name]}))
    lab.storage.put(f"{prefix}/{bundle.STATE}", path)
    with pytest.raises(bundle.BundleError, match="another content"):
        lab.adopt("user/odd", {"prefix": prefix}, CNN)
    document = json.loads(lab.storage.fetch(f"{prefix}/{bundle.SPEC}").read_text())
    document["files"][bundle.STATE] = bundle.entry(path).model_dump(mode="json")
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(document))
    lab.storage.put(f"{prefix}/{bundle.SPEC}", spec)
    done = lab.adopt("user/odd", {"prefix": prefix}, CNN)
    assert "a network that its job has changed" in done["failure"]
    assert done["document"] is None


def test_a_version_that_was_deleted_meanwhile_is_a_clear_failure(lab):
    with pytest.raises(JobFailure, match="deleted meanwhile") as caught:
        lab.adopt("user/gone", {"prefix": "bundles/default/none"}, CNN)
    assert caught.value.code == "version_deleted"


def test_sets_survive_packing() -> None:
    made = [seen("dataset", [1, 2], looks=[3, 2**63 + 1]), artifact.of_class('a "b"/|', [b"\1" * 32])]
    found = artifact.unpack(artifact.pack(made))
    assert [(one.what, one.id) for one in found] == [("dataset", "ds_dataset"), ("class_images", 'a "b"/|')]
    for one, other in zip(made, found, strict=True):
        assert np.array_equal(one.sha256, other.sha256)
        assert np.array_equal(one.phash, other.phash)
        assert np.array_equal(one.ids, other.ids)
