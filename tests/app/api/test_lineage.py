"""The lineage of versions: chains through jobs, data, own backbones and added classes; and what test items met."""

import hashlib
import sys

import pytest

from app.artifact import bundle
from app.artifact import seen as artifact
from app.artifact.tensors import load
from app.db.models import Model, UserBackbone
from tests import factories
from tests.checks import problem

SIGNS = {"num_by_id": 1, "num_by_sha256": 1, "num_by_phash": 4, "num_by_copy": 1, "num_look_alike": 2}
ITEMS = {
    "num_test": 9, "num_seen_before": 2, **SIGNS,
    "seen_in": [{"what": "dataset", "id": "ds_1", "backbone": "user/mine", "num_items": 2, **SIGNS}],
    "num_seen_without_labels": 0, "seen_without_labels_in": [],
}  # fmt: skip
SEEN = artifact.of_class("first", [b"\1" * 32])


def report():
    return {"verdict": None, "warnings": ["2 of 9 test items"], "data": {"lineage": {"items": ITEMS, "unknown": None}}}


@pytest.fixture
def publish(database, storage, tmp_path):
    """Publishes a version with a real bundle."""

    def make(name, number=1, *, of=None, backbone=None, dataset=None, source=None, document=None, state=None, **fields):
        described = {"dataset": dataset, "source": source, "temperature": 1.0}
        if backbone:
            described["backbone"] = {"name": backbone, "digest": "e" * 64, "licence": "MIT", "feature_dim": 6}
        with database.write() as session:
            model = of or factories.model(session, name, num_versions=0)
            session.add(model)
            row = factories.published(
                session, storage, tmp_path / name, model, number, described=described,
                parts={"report": document or report(), "seen": artifact.pack([SEEN]), "state": state}, **fields,
            )  # fmt: skip
            model.last_version = number
            return row

    return make


def used(row):
    return {"id": row.id, "digest": row.digest, "splits": {"train": 1}}


def nodes(found):
    return [(node["what"], node["id"], node["of"], node["present"]) for node in found["chain"]]


def get(client, name, number=1):
    answer = client.get(f"/api/v1/models/{name}/versions/{number}/lineage")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_whole_chain(client, database, storage, publish):
    with database.write() as session:
        base = factories.dataset(session)
        child = factories.dataset(session, base_id=base.id)
        source = factories.dataset(session)
        aligned = factories.alignment(session, backbone_digest="e" * 64, files={"alignment.onnx": {"sha256": "f" * 64}})
        factories.alignment(session, number=2, backbone_digest="0" * 64)
    first = publish("first", backbone=factories.BACKBONE, dataset=used(base), shared=False)
    with database.write() as session:
        document = {
            "architecture": factories.BACKBONE, "taught_by": [{"what": "dataset", "id": base.id, "num_items": 3}],
            "source": {"model": "first", "version": 1, "version_id": first.id},
        }  # fmt: skip
        session.add(UserBackbone(id="bb_1", project_id="default", name="user/mine", state="ready", document=document))
        job = factories.job(session, state="succeeded", recipe={"method": "adapt"})
    second = publish(
        "second", backbone="user/mine", dataset=used(child), source=used(source), job_id=job.id,
    )  # fmt: skip
    client.put("/api/v1/models/second/domains/night", json={"alignment": aligned.id})
    found = get(client, "second")
    assert nodes(found) == [
        ("version", "second/1", None, True),
        ("job", job.id, "second/1", True),
        ("dataset", child.id, "second/1", True),
        ("base", base.id, child.id, True),
        ("source", source.id, "second/1", True),
        ("backbone", "user/mine", "second/1", True),
        ("version", "first/1", "user/mine", True),
        ("job", first.job_id, "first/1", False),
        ("dataset", base.id, "first/1", True),
        ("backbone", factories.BACKBONE, "first/1", True),
        ("alignment", aligned.id, "second/1", True),
    ]
    by_id = {(node["what"], node["id"]): node for node in found["chain"]}
    assert by_id["dataset", child.id]["digest"] == child.digest
    assert by_id["alignment", aligned.id]["digest"] == "f" * 64
    spec = storage.fetch(f"{second.prefix}/{bundle.SPEC}").read_bytes()
    assert by_id["version", "second/1"]["digest"] == hashlib.sha256(spec).hexdigest()
    assert by_id["backbone", "user/mine"]["details"]["taught_by"] == document["taught_by"]
    assert by_id["backbone", factories.BACKBONE]["details"]["weights_changed"] is True
    assert by_id["version", "first/1"]["details"]["through"] == "its trained network became the backbone"
    assert (found["items"], found["warnings"], found["unknown"]) == (ITEMS, ["2 of 9 test items"], None)


def test_what_was_deleted_stays_known_by_its_digest(client, database, publish):
    with database.write() as session:
        kept = factories.dataset(session)
        session.add(
            UserBackbone(
                id="bb_1", project_id="default", name="user/mine", state="ready",
                document={
                    "architecture": "x",
                    "source": {
                        "model": "gone", "version": 4, "version_id": "ver_gone", "dataset": "ds_older",
                        "backbone": factories.BACKBONE,
                    },
                },
            )
        )  # fmt: skip
    gone = {"id": "ds_gone", "digest": "d" * 64, "splits": {}}
    publish("m", backbone="user/mine", dataset={**used(kept), "digest": "0" * 64}, source=gone)
    found = nodes(get(client, "m"))
    # All that backbones of before have written down.
    assert ("dataset", "ds_older", "gone/4", False) in found
    assert found[-1] == ("backbone", factories.BACKBONE, "gone/4", True)
    assert ("source", "ds_gone", "m/1", False) in found
    # Still there, but not as it was used.
    assert ("dataset", kept.id, "m/1", False) in found
    assert ("version", "gone/4", "user/mine", False) in found


def test_a_backbone_remembers_the_versions_below_it_after_these_were_deleted(client, database, publish, tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"not looked into")
    with database.write() as session:
        first, second = factories.dataset(session), factories.dataset(session)
    publish("first", backbone=factories.BACKBONE, dataset=used(first), shared=False, state=weights)
    answer = client.post("/api/v1/backbones", json={"name": "one", "model": "first", "version": 1})
    assert answer.status_code == 202, answer.text
    publish("second", backbone="user/one", dataset=used(second), shared=False, state=weights)
    assert client.post("/api/v1/backbones", json={"name": "two", "model": "second", "version": 1}).status_code == 202
    publish("third", backbone="user/two", dataset=used(second))
    whole = nodes(get(client, "third"))
    assert client.delete("/api/v1/models/second/versions/1").status_code == 204
    found = nodes(get(client, "third"))
    gone = ("version", "second/1", "user/two", False)
    assert found == [gone if node[:3] == gone[:3] else node for node in whole]
    assert ("backbone", factories.BACKBONE, "first/1", True) in found
    # The own backbone in the middle goes too, and with it the first version.
    with database.write() as session:
        session.delete(session.query(UserBackbone).filter_by(name="user/one").one())
    assert client.delete("/api/v1/models/first/versions/1").status_code == 204
    found = nodes(get(client, "third"))
    assert ("backbone", "user/one", "second/1", False) in found
    assert ("dataset", first.id, "first/1", True) in found
    assert found[-1] == ("backbone", factories.BACKBONE, "first/1", True)


def test_an_added_class_hands_its_bases_trace_on(client, database, storage, publish):
    publish("colours", labels=("blue", "red"))
    picture = factories.png(factories.COLOURS["green"])
    files = [("file", ("a.png", picture)), ("file", ("b.png", factories.png(factories.COLOURS["green"], seed=1)))]
    answer = client.post("/api/v1/models/colours/classes", data={"label": "green"}, files=files)
    assert answer.status_code == 201, answer.text
    found = get(client, "colours", 2)
    assert nodes(found)[:2] == [("version", "colours/2", None, True), ("version", "colours/1", "colours/2", True)]
    assert found["chain"][1]["details"]["label"] == "green"
    assert (found["items"], found["warnings"]) == (ITEMS, ["2 of 9 test items"])
    prefix = next(key for key in storage.list("bundles") if key.endswith(f"added/{bundle.SEEN}"))
    known = artifact.unpack(load(storage.fetch(prefix)))
    assert [(one.what, one.id) for one in known] == [("class_images", "first"), ("class_images", "green")]
    assert hashlib.sha256(picture).digest() in {one.tobytes() for one in known[1].sha256}
    assert client.delete("/api/v1/models/colours/versions/1").status_code == 204
    found = get(client, "colours", 2)
    assert ("version", "colours/1", "colours/2", False) in nodes(found)
    assert found["items"]["num_test"] is None
    assert "deleted" in found["unknown"]


def test_classes_may_be_added_one_after_another_without_end(client, database, publish):
    num_versions = 1 + sys.getrecursionlimit()
    first = publish("colours", dataset=None)
    with database.write() as session:
        model = session.get_one(Model, first.model_id)
        for number in range(2, num_versions + 1):
            added = {"label": f"class {number}", "model": "colours", "version": number - 1, "num_images": 1}
            row = factories.version(session, model, number, job_id=None, prefix=first.prefix)
            row.spec = {**first.spec, "added": added}
    found = get(client, "colours", num_versions)
    versions = [(node["id"], node["of"]) for node in found["chain"] if node["what"] == "version"]
    numbers = range(num_versions, 0, -1)
    assert versions == [(f"colours/{n}", f"colours/{n + 1}" if n < num_versions else None) for n in numbers]
    assert found["items"] == ITEMS


@pytest.mark.parametrize(
    ("document", "dataset", "num_test", "word"),
    [({"verdict": None, "data": {"dataset": "ds_1"}}, "ds_1", None, "before Graft traced"),
     ({"verdict": None, "data": None}, None, 0, "tested on no item"),
     ({"verdict": None}, "ds_1", None, "before Graft traced")],
)  # fmt: skip
def test_versions_without_a_trace_say_why(client, publish, document, dataset, num_test, word):
    made_from = dataset and {"id": dataset, "digest": "d" * 64, "splits": {}}
    publish("m", document=document, dataset=made_from)
    found = get(client, "m")
    assert (found["items"]["num_test"], found["items"]["num_seen_before"]) == (num_test, None)
    assert word in found["unknown"]


def test_unknown_versions(client, database, publish):
    publish("m")
    problem(client.get("/api/v1/models/m/versions/2/lineage"), 404, "not_found")
    problem(client.get("/api/v1/models/none/versions/1/lineage"), 404, "not_found")
