"""A user's own weights: taken, checked, listed, given up."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.db.base import now
from app.db.models import UserBackbone
from app.db.waste import Waste
from app.services import limits, outcomes, own_backbones, references, stored_bytes, waste
from tests import factories
from tests.checks import problem
from tests.factories import files_below

URL = "/api/v1/backbones"
NAME = "timm/tf_efficientnet_lite0"


def send(client, file=b"weights", **fields):
    form = {"name": "mine", "architecture": NAME, **fields}
    return client.post(URL, files={"file": ("w.safetensors", file)}, data=form)


def test_own_weights_wait_for_their_check(client, home):
    answer = send(client)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{URL}/own/mine"
    assert client.get(answer.headers["Location"]).json() == body
    assert (body["name"], body["architecture"], body["state"]) == ("user/mine", NAME, "checking")
    assert client.get(f"/api/v1/jobs/{body['job_id']}").json()["kind"] == "backbone"
    assert len(files_below(home / "storage")) == 1
    # Nobody can use it before it was checked.
    refused = problem(client.get(f"{URL}/user/mine"), 404, "unknown_backbone")
    assert "found 'user/mine' checking; see GET /api/v1/backbones/own/mine" in refused["detail"]


def test_refused_weights_leave_nothing_behind(client, home):
    problem(send(client, architecture="timm/nothing"), 404, "unknown_backbone")
    problem(send(client, architecture=""), 400, "file_missing")
    problem(send(client, name=""), 400, "file_missing")
    problem(send(client, file=b""), 400, "file_missing")
    found = problem(client.post(URL, json={}), 415, "unsupported_media_type")
    assert "multipart/form-data" in found["detail"]
    problem(client.get(f"{URL}/own/mine"), 404, "not_found")
    assert files_below(home / "storage", home / "scratch", home / "broker" / "messages") == []


@pytest.mark.parametrize("name", ["../up", "a b", "n" * 96, "a/b"])
def test_names_are_plain(shared_client, name):
    found = problem(send(shared_client, name=name), 422, "invalid_payload")
    assert [item["pointer"] for item in found["errors"]] == ["/name"]


def test_longest_name_fits(client):
    assert send(client, name="n" * 95).status_code == 202


def test_taken_name_is_refused_until_its_check_has_failed(client, database, home):
    first = send(client).json()
    problem(send(client), 409, "name_taken")
    assert len(files_below(home / "storage")) == 1
    # Its owner gives up before a worker has looked.
    assert client.post(f"/api/v1/jobs/{first['job_id']}/cancel").status_code == 200
    assert files_below(home / "storage") == []
    assert client.get(f"{URL}/own/mine").json()["state"] == "invalid"
    assert send(client).status_code == 202


def test_own_backbone_that_is_ready_is_listed_first(client, database):
    catalogue = client.get(f"{URL}/{NAME}").json()
    kept = ("provider", "architecture", "num_params", "feature_dim", "licence", "paper")
    document = {
        **{key: catalogue[key] for key in kept},
        "name": "user/mine", "preprocess": catalogue["input"], "recommended": False, "rank": None,
        "weights": {"kind": "user", "location": "here"},
    }  # fmt: skip
    job_id = send(client).json()["job_id"]
    with database.write() as session:
        job = session.get_one(factories.Job, job_id)
        job.state, job.lease_owner = "running", "me"
        session.flush()
        result = {"failure": None, "mapping": {"mapped": 1}, "document": {"backbone": document, "architecture": NAME}}
        assert outcomes.succeed(session, job_id, "me", result) == [job.inputs["file"]]
    rows = client.get(URL, params={"limit": 2}).json()["data"]
    assert rows[0]["name"] == "user/mine"
    assert rows[0]["available"] is True
    assert client.get(f"{URL}/user/mine").json() == rows[0]
    assert client.get(f"{URL}/own/mine").json()["mapping"] == {"mapped": 1}
    with database.read() as session:
        assert session.query(UserBackbone).one().state == "ready"


def test_own_weights_go_when_nothing_uses_them(client, database, home):
    made = send(client).json()
    assert problem(client.delete(f"{URL}/own/mine"), 409, "in_use")["users"] == [made["job_id"]]
    with database.write() as session:
        session.get_one(factories.Job, made["job_id"]).state = "failed"
        row = session.query(UserBackbone).one()
        row.state, row.document = "ready", {**row.document, "prefix": "backbones/default/bb_1/1"}
        version = factories.version(session, factories.model(session, "pets", 0), 1)
        version.spec = {**version.spec, "backbone": {"name": "user/mine"}}
        waiting = factories.job(session, kind="rank", inputs={"backbones": [NAME, "user/mine"]}).id
    weights = home / "storage/backbones/default/bb_1/1/weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    held = problem(client.delete(f"{URL}/own/mine"), 409, "in_use")
    assert held["users"] == [waiting, "pets version 1"]
    assert "cancel those jobs or wait for their end, and delete those versions first" in held["detail"]
    with database.write() as session:
        session.get_one(factories.Job, waiting).inputs = {"backbones": [NAME, "user/mine_too"]}
        version = session.get_one(type(version), version.id)
        version.spec = {**version.spec, "backbone": {"name": NAME}}
    assert client.delete(f"{URL}/own/mine").status_code == 204
    assert not weights.exists()
    problem(client.delete(f"{URL}/own/mine"), 404, "not_found")
    assert send(client).status_code == 202


def test_a_key_sent_again_adds_nothing(client, home):
    form, headers = {"name": "mine", "architecture": NAME}, {"Idempotency-Key": "one"}

    def again(file=b"weights", **changed):
        return client.post(URL, files={"file": ("w.safetensors", file)}, data={**form, **changed}, headers=headers)

    first = again()
    second = again()
    assert (first.status_code, second.status_code) == (202, 202)
    assert (second.json(), second.headers["Location"]) == (first.json(), first.headers["Location"])
    assert (first.headers.get("Idempotent-Replayed"), second.headers["Idempotent-Replayed"]) == (None, "true")
    assert len(files_below(home / "storage")) == 1
    assert len(client.get("/api/v1/jobs").json()["data"]) == 1
    for changed in ({"file": b"others"}, {"name": "other"}, {"input": '{"height": 96}'}):
        problem(again(**changed), 422, "idempotency_mismatch")
    assert len(files_below(home / "storage")) == 1


def test_an_input_of_its_own(client, database):
    """The rest is the architecture's, and the shorter side keeps its proportion to the crop."""
    whole = {"height": 112, "width": 96, "mean": [0.1, 0.2, 0.3], "std": [1, 0.5, 0.5], "interpolation": "bilinear"}
    job_id = send(client, input=json.dumps(whole)).json()["job_id"]
    assert send(client, name="other").status_code == 202
    base = client.get(f"{URL}/{NAME}").json()["input"]
    resize = round(112 * base["resize"] / 224)
    with database.read() as session:
        found = session.get_one(factories.Job, job_id).inputs["input"]
        jobs = {job.backbone: job.inputs["input"] for job in session.query(factories.Job)}
    assert {name: value for name, value in found.items() if name != "version"} == {**whole, "resize": resize}
    assert base.items() <= jobs["user/other"].items()


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"height": 8}, "/input/height"),
        ({"height": "112"}, "/input/height"),
        ({"mean": [0.5, 0.5]}, "/input/mean/2"),
        ({"std": [0, 0.5, 0.5]}, "/input/std/0"),
        ({"interpolation": "nearest"}, "/input/interpolation"),
        ({"resize": 100}, "/input/resize"),
        ({"crop": 1}, "/input/crop"),
    ],
)
def test_an_input_that_cannot_be(client, home, given, pointer):
    found = problem(send(client, input=json.dumps(given)), 422, "invalid_payload")
    assert [item["pointer"] for item in found["errors"]] == [pointer]
    assert files_below(home / "storage") == []


def test_why_weights_were_refused(client, database):
    made = send(client).json()
    with database.write() as session:
        job = session.get_one(factories.Job, made["job_id"])
        job.state, job.lease_owner = "running", "me"
        session.flush()
        refused = {"failure": "expected more; found less", "mapping": {"mapped": 1}, "document": None}
        outcomes.succeed(session, made["job_id"], "me", refused)
    why = {"code": "weights_unavailable", "message": "expected more; found less"}
    assert client.get(f"{URL}/own/mine").json()["failure"] == why
    assert client.get(f"/api/v1/jobs/{made['job_id']}").json()["failure"] == why
    with database.write() as session:
        session.query(UserBackbone).one().failure_code = None
    # As a release wrote it that had no codes.
    assert client.get(f"{URL}/own/mine").json()["failure"] == why


@pytest.fixture
def unchecked(client, database, storage):
    """Own weights whose check has ended without a word about them: there was no room to open them."""
    made = send(client).json()
    with database.write() as session:
        job = session.get_one(factories.Job, made["job_id"])
        job.state, job.lease_owner = "running", "me"
        session.flush()
        assert outcomes.fail(session, made["job_id"], "me", "internal", "the disk is full") == []
        file = job.inputs["file"]
        assert file in references.sent(session)
        assert stored_bytes.of_rows(session)["default"]["backbones"] == len(b"weights")
    assert storage.fetch(file).read_bytes() == b"weights"
    found = client.get(f"{URL}/own/mine").json()
    assert (found["state"], found["failure"]["code"]) == ("invalid", "internal")
    return {**made, "file": file}


def again(client, made):
    return client.post(f"/api/v1/jobs/{made['job_id']}/retry")


def test_a_check_that_came_to_no_end_is_tried_again(client, database, unchecked):
    assert again(client, unchecked).status_code == 202
    found = client.get(f"{URL}/own/mine").json()
    assert (found["state"], found["failure"], found["job_id"]) == ("checking", None, unchecked["job_id"])
    problem(send(client), 409, "name_taken")
    with database.write() as session:
        job = session.get_one(factories.Job, unchecked["job_id"])
        job.state, job.lease_owner = "running", "me"
        session.flush()
        refused = {"failure": "expected more; found less", "mapping": None, "document": None}
        assert outcomes.succeed(session, job.id, "me", refused) == [unchecked["file"]]
        assert unchecked["file"] not in references.sent(session)
        assert stored_bytes.of_rows(session)["default"]["backbones"] == 0
    assert "upload it again" in problem(again(client, unchecked), 400, "not_retryable")["detail"]


def test_weights_that_are_not_tried_again_go_with_their_row(client, storage, unchecked):
    assert client.delete(f"{URL}/own/mine").status_code == 204
    assert storage.stat(unchecked["file"]) is None
    assert "deleted" in problem(again(client, unchecked), 409, "invalid_state")["detail"]


def test_weights_that_are_sent_again_take_the_place_of_those(client, database, storage, unchecked):
    assert send(client, b"others").status_code == 202
    with database.write() as session:
        session.query(Waste).update({Waste.due_at: now()})
    waste.sweep(database, storage)
    assert storage.stat(unchecked["file"]) is None
    assert "sent again" in problem(again(client, unchecked), 409, "invalid_state")["detail"]


def test_weights_that_are_about_to_go_are_not_tried_again(client, database, unchecked):
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            own_backbones.delete(session, "default", "mine")
            retried = pool.submit(again, client, unchecked)
        assert "deleted" in problem(retried.result(30), 409, "invalid_state")["detail"]


def test_weights_that_are_about_to_be_tried_again_do_not_go(client, database, storage, unchecked):
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            outcomes.retry(session, "default", unchecked["job_id"])
            deletion = pool.submit(client.delete, f"{URL}/own/mine")
        assert problem(deletion.result(30), 409, "in_use")["users"] == [unchecked["job_id"]]
    assert storage.fetch(unchecked["file"]).read_bytes() == b"weights"


def test_a_versions_network_counts_while_it_is_checked_again(client, database, storage, tmp_path):
    (tmp_path / "weights").write_bytes(b"not looked into")
    backbone = {"name": NAME, "digest": "e" * 64, "licence": "MIT", "feature_dim": 6}
    with database.write() as session:
        factories.published(
            session, storage, tmp_path / "first", factories.model(session, "first", num_versions=0), 1, shared=False,
            described={"temperature": 1.0, "backbone": backbone}, parts={"state": tmp_path / "weights"},
        )  # fmt: skip

    def ended(name):
        made = client.post(URL, json={"name": name, "model": "first", "version": 1}).json()
        with database.write() as session:
            job = session.get_one(factories.Job, made["job_id"])
            job.state, job.lease_owner = "running", "me"
            session.flush()
            outcomes.fail(session, job.id, "me", "internal", "the disk is full")
        return made

    def stored():
        with database.read() as session:
            return stored_bytes.of_rows(session)["default"]["backbones"]

    one, other = ended("one"), ended("other")
    assert stored() == 0
    assert again(client, one).status_code == 202
    assert stored() == len(b"not looked into")
    with database.write() as session:
        limits.put(session, "default", limits.Limits(max_bytes=1))
    problem(again(client, other), 429, "too_many_bytes")
    assert client.delete("/api/v1/models/first/versions/1").status_code == 204
    assert "found it deleted" in problem(again(client, other), 409, "invalid_state")["detail"]
