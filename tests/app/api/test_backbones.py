"""Routes of backbones and recipes."""

import json

import jsonschema
import pytest

from app import recipes
from app.db.models import UserBackbone
from app.services import outcomes
from tests import factories
from tests.checks import problem
from tests.factories import files_below

URL = "/api/v1/backbones"
NAME = "timm/tf_efficientnet_lite0"


def send(client, file=b"weights", **fields):
    form = {"name": "mine", "architecture": NAME, **fields}
    return client.post(URL, files={"file": ("w.safetensors", file)}, data=form)


def test_catalogue_in_pages(shared_client):
    everything = shared_client.get(URL, params={"limit": 1000}).json()
    names = [row["name"] for row in everything["data"]]
    assert len(set(names)) == len(names)
    marks = [row["recommended"] for row in everything["data"]]
    assert marks == sorted(marks, reverse=True)
    first = shared_client.get(URL, params={"limit": 3}).json()
    assert ([row["name"] for row in first["data"]], first["has_more"]) == (names[:3], True)
    second = shared_client.get(URL, params={"limit": 3, "after": names[2]}).json()
    assert [row["name"] for row in second["data"]] == names[3:6]
    problem(shared_client.get(URL, params={"after": "nothing"}), 400, "bad_request")


def test_one_backbone(shared_client):
    found = shared_client.get(f"{URL}/{NAME}").json()
    assert found.items() >= {"name": NAME, "provider": "timm", "feature_dim": 1280, "recommended": True}.items()
    assert found["input"]["height"] == 224
    problem(shared_client.get(f"{URL}/timm/nothing"), 404, "unknown_backbone")
    near = problem(shared_client.get(f"{URL}/timm/tf_efficientnet_lite9"), 404, "unknown_backbone")
    assert "timm/tf_efficientnet_lite" in near["detail"].partition("similar")[2]


def test_filters(shared_client):
    found = shared_client.get(URL, params={"search": "Efficientnet_LITE", "limit": 1000}).json()["data"]
    assert NAME in {row["name"] for row in found}
    assert all("efficientnet_lite" in row["name"] for row in found)
    found = shared_client.get(URL, params={"recommended": True, "limit": 1000}).json()["data"]
    assert found
    assert all(row["recommended"] for row in found)


def test_models_with_a_text_tower(shared_client):
    rows = shared_client.get(URL, params={"provider": "open_clip", "limit": 1000}).json()["data"]
    assert len(rows) > 150
    assert all(row["provider"] == "open_clip" and row["text_tower"] for row in rows)
    found = shared_client.get(f"{URL}/open_clip/ViT-B-32.laion2b_s34b_b79k").json()
    assert found["architecture"] == "ViT-B-32"
    assert (found["feature_dim"], found["num_params"], found["input"]["height"]) == (512, 87849216, 224)
    assert shared_client.get(f"{URL}/{NAME}").json()["text_tower"] is False
    assert shared_client.get(URL, params={"provider": "nobody"}).json()["data"] == []


def test_available_is_what_a_worker_has(client, database):
    assert client.get(f"{URL}/{NAME}").json()["available"] is False
    with database.write() as session:
        factories.worker(session, backbones=[NAME])
    assert client.get(f"{URL}/{NAME}").json()["available"] is True
    found = client.get(URL, params={"available": True}).json()["data"]
    assert [row["name"] for row in found] == [NAME]


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
    problem(client.get(f"{URL}/user/mine"), 404, "unknown_backbone")


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
    assert problem(client.delete(f"{URL}/own/mine"), 409, "in_use")["users"] == [waiting, "pets version 1"]
    with database.write() as session:
        session.get_one(factories.Job, waiting).inputs = {"backbones": [NAME, "user/mine_too"]}
        version = session.get_one(type(version), version.id)
        version.spec = {**version.spec, "backbone": {"name": NAME}}
    assert client.delete(f"{URL}/own/mine").status_code == 204
    assert not weights.exists()
    problem(client.delete(f"{URL}/own/mine"), 404, "not_found")
    assert send(client).status_code == 202


def test_recipes_are_json_schemas(shared_client):
    rows = shared_client.get("/api/v1/recipes").json()["data"]
    assert [row["method"] for row in rows] == list(recipes.RECIPES)
    for row in rows:
        jsonschema.Draft202012Validator.check_schema(row["json_schema"])
        validator = jsonschema.Draft202012Validator(row["json_schema"])
        given = {"method": row["method"], **json.loads(json.dumps(factories.NEEDED.get(row["method"], {})))}
        assert validator.is_valid(given)
        assert not validator.is_valid({**given, "unknown": 1})
        assert row["summary"]
        assert row["when"]
        assert row["cost"]
        assert row["paper"]
        assert row["tasks"] == ["classification"]
