"""Routes of models, on both databases."""

import io
import json

import numpy as np
import onnxruntime
import pytest
from sqlalchemy import func, select

from app.db.aliases import Alias, AliasChange
from app.db.models import Model, ModelVersion
from app.errors import Conflict
from app.services import aliases, models
from app.storage import Stored
from tests import factories
from tests.app.onnx_factories import images
from tests.checks import problem
from tests.factories import files_below
from tests.inference import publish

URL = "/api/v1/models"


def make(database, name="colours", num_versions=3):
    with database.write() as session:
        return factories.model(session, name, num_versions).id


def point(client, version, alias="production", name="colours"):
    return client.put(f"{URL}/{name}/aliases/{alias}", json={"version": version})


def num_rows(database, table):
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_model_with_versions_newest_first(client, database):
    make(database)
    found = client.get(f"{URL}/colours").json()
    assert [row["version"] for row in found["versions"]] == [3, 2, 1]
    assert found["aliases"] == {}
    assert found["versions"][0]["metrics"] == {"test_accuracy": 0.5}
    assert client.get(URL).json() == {"data": [found], "has_more": False}


def test_list_is_newest_first_in_pages(client, database):
    names = [f"m{number}" for number in range(5)]
    for name in names:
        make(database, name, 1)
    with database.read() as session:
        order = session.scalars(select(factories.Model.name).order_by(factories.Model.id.desc())).all()
    first = client.get(URL, params={"limit": 3}).json()
    assert ([row["name"] for row in first["data"]], first["has_more"]) == (order[:3], True)
    rest = client.get(URL, params={"limit": 3, "after": order[2]}).json()
    assert ([row["name"] for row in rest["data"]], rest["has_more"]) == (order[3:], False)
    problem(client.get(URL, params={"after": "nothing"}), 404, "not_found")
    problem(client.get(URL, params={"limit": 1001}), 422, "invalid_payload")


def test_unknown_names(client, database):
    make(database)
    for method, path in [
        ("GET", "/nothing"), ("DELETE", "/nothing"), ("GET", "/nothing/versions/1"), ("DELETE", "/nothing/versions/1"),
        ("GET", "/nothing/versions/1/files/spec.json"), ("GET", "/nothing/aliases/a"), ("DELETE", "/nothing/aliases/a"),
        ("GET", "/colours/versions/4"), ("DELETE", "/colours/versions/4"), ("DELETE", "/colours/aliases/a"),
    ]:  # fmt: skip
        problem(client.request(method, URL + path), 404, "not_found")
    problem(point(client, 1, name="nothing"), 404, "not_found")
    problem(point(client, 4), 404, "not_found")
    problem(point(client, 0), 422, "invalid_payload")
    problem(point(client, 1, alias="a b"), 422, "invalid_payload")
    problem(client.put(f"{URL}/colours/aliases/a", json={"version": 1, "x": 1}), 422, "invalid_payload")
    problem(client.get(f"{URL}/colours/versions/x"), 422, "invalid_payload")
    assert num_rows(database, Alias) == 0


def test_alias_moves_and_remembers(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 3)
    for version in (1, 2, 2, 1):
        assert point(client, version).json()["version"] == version
    point(client, 3, alias="canary")
    assert client.get(f"{URL}/colours").json()["aliases"] == {"canary": 3, "production": 1}
    assert client.delete(f"{URL}/colours/aliases/production").status_code == 204
    assert client.get(f"{URL}/colours").json()["aliases"] == {"canary": 3}
    history = client.get(f"{URL}/colours/aliases/production").json()
    # Pointing it where it already points is no change.
    assert [row["version"] for row in history["data"]] == [None, 1, 2, 1]
    moments = [row["at"] for row in history["data"]]
    assert moments == sorted(moments, reverse=True)


def test_version_under_an_alias_is_kept(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 3)
    point(client, 2)
    point(client, 2, alias="canary")
    found = problem(client.delete(f"{URL}/colours/versions/2"), 409, "in_use")
    assert sorted(found["users"]) == ["canary", "production"]
    assert client.delete(f"{URL}/colours/versions/3").status_code == 204
    point(client, 1)
    point(client, 1, alias="canary")
    assert client.delete(f"{URL}/colours/versions/2").status_code == 204
    assert [row["version"] for row in client.get(f"{URL}/colours").json()["versions"]] == [1]


def test_delete_frees_bundles_but_not_what_others_share(client, database, storage, tmp_path):
    with database.write() as session:
        one, other = factories.model(session, "one", 0), factories.model(session, "other", 0)
        first = factories.published(session, storage, tmp_path / "made", one, 1)
        second = factories.published(session, storage, tmp_path / "made", one, 2)
        kept = factories.published(session, storage, tmp_path / "made", other, 1)
    assert client.delete(f"{URL}/one/versions/1").status_code == 204
    assert list(storage.list(first.prefix)) == []
    point(client, 2, name="one")
    assert client.delete(f"{URL}/one").status_code == 204
    assert list(storage.list(second.prefix)) == []
    assert [num_rows(database, table) for table in (ModelVersion, Alias, AliasChange)] == [1, 0, 0]
    assert len(list(storage.list(kept.prefix))) == 6
    assert list(storage.list("graphs")) == [factories.SHARED_GRAPH]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "failed"])
def test_model_that_a_job_will_publish_to_is_kept(client, database, state):
    make(database)
    with database.write() as session:
        job = factories.job(session, state=state).id
    answer = client.delete(f"{URL}/colours")
    if state in ("queued", "running"):
        found = problem(answer, 409, "in_use")
        assert (found["users"], "cancel those jobs" in found["detail"]) == ([job], True)
    else:
        assert answer.status_code == 204


@pytest.mark.parametrize("shared", [True, False])
def test_files_come_as_attachments(client, database, storage, tmp_path, shared):
    with database.write() as session:
        of = factories.model(session, "tiny", 0)
        row = factories.published(session, storage, tmp_path / "made", of, 1, shared=shared)
    detail = client.get(f"{URL}/tiny/versions/1").json()
    assert detail["files"] == sorted([*row.spec["files"], "model.onnx", "spec.json"])
    assert detail["spec"] == row.spec
    contents = {}
    for name in detail["files"]:
        answer = client.get(f"{URL}/tiny/versions/1/files/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["content-type"] == "application/octet-stream"
        contents[name] = answer.content
    assert json.loads(contents["spec.json"]) == row.spec
    assert contents["backbone.onnx"] == (tmp_path / "made" / "tiny.onnx").read_bytes()
    session = onnxruntime.InferenceSession(contents["model.onnx"], providers=["CPUExecutionProvider"])
    assert {output.name for output in session.get_outputs()} == {"probabilities", "features"}
    assert session.run(["probabilities"], {"images": images(2)})[0].shape == (2, 3)
    for name in ("nothing", "%2e%2e%2fspec.json", "spec.json%00"):
        problem(client.get(f"{URL}/tiny/versions/1/files/{name}"), 404, "not_found")


DAMAGED = {
    "head.onnx gone": (
        "head.onnx",
        None,
        "expected head.onnx of this version in storage; found none; restore its files",
    ),
    "head.onnx cut short": ("head.onnx", b"half", "bytes; found 4; restore its files"),
    "spec.json gone": ("spec.json", None, "expected spec.json of this version in storage; found none"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_version_whose_stored_files_are_damaged_is_told_as_such(light_client, tmp_path, case):
    file, content, words = DAMAGED[case]
    state = light_client.app.state.graft
    with state.database.write() as session:
        prefix = factories.published(
            session, state.storage, tmp_path / "made", factories.model(session, "tiny", 0), 1
        ).prefix
    place = state.storage.path(f"{prefix}/{file}")
    place.unlink()
    if content is not None:
        place.write_bytes(content)
    version, picture = f"{URL}/tiny/versions/1", [("file", ("a.png", factories.png()))]
    assert words in problem(light_client.get(f"{version}/files/{file}"), 500, "bundle_invalid")["detail"]
    if file == "spec.json":
        # The row says the same.
        assert light_client.post(f"{URL}/tiny/predict", files=picture).status_code == 200
        assert light_client.get(f"{version}/bundle").status_code == 200
        return
    for path in ("bundle", "repository", "mlflow", "files/model.onnx", f"files/{file}"):
        answer = light_client.get(f"{version}/{path}")
        assert words in problem(answer, 500, "bundle_invalid")["detail"], path
        assert prefix not in answer.text
    found = problem(light_client.post(f"{URL}/tiny/predict", files=picture), 503, "version_not_ready")
    assert prefix not in found["detail"]
    (row,) = light_client.post("/v2/repository/index").json()
    assert row["state"] == "UNAVAILABLE"


def test_onnx_file_is_head_on_backbone(client, database, storage, tmp_path):
    with database.write() as session:
        factories.published(session, storage, tmp_path / "made", factories.model(session, "tiny", 0), 1)

    def run(name, names, feed):
        content = client.get(f"{URL}/tiny/versions/1/files/{name}").content
        session = onnxruntime.InferenceSession(io.BytesIO(content).getvalue(), providers=["CPUExecutionProvider"])
        return session.run(names, feed)[0]

    features = run("backbone.onnx", ["features"], {"images": images(3)})
    apart = run("head.onnx", ["probabilities"], {"features": features})
    np.testing.assert_array_equal(run("model.onnx", ["probabilities"], {"images": images(3)}), apart)
    assert files_below(tmp_path / "home" / "scratch") == []


def put(client, alias="production", **body):
    return client.put(f"{URL}/colours/aliases/{alias}", json=body)


def test_an_alias_tries_versions_beside_its_own(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 3)
    body = put(client, version=1, canary=2, share=0.1, shadow=3).json()
    assert {key: body[key] for key in ("version", "canary", "share", "shadow")} == {
        "version": 1, "canary": 2, "share": 0.1, "shadow": 3
    }  # fmt: skip
    for number in (2, 3):
        assert problem(client.delete(f"{URL}/colours/versions/{number}"), 409, "in_use")["users"] == ["production"]
    put(client, version=2)
    history = client.get(f"{URL}/colours/aliases/production").json()["data"]
    assert [(row["version"], row["canary"], row["share"], row["shadow"]) for row in history] == [
        (2, None, None, None), (1, 2, 0.1, 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body", [{"canary": 2}, {"share": 0.1}, {"canary": 2, "share": 0}, {"canary": 2, "share": 1}, {"shadow": 0}]
)
def test_a_trial_that_makes_no_sense_is_refused(client, database, body):
    make(database)
    problem(put(client, version=1, **body), 422, "invalid_payload")
    problem(put(client, version=1, shadow=9), 404, "not_found")
    assert num_rows(database, Alias) == 0


@pytest.mark.parametrize(("name", "body"), [("canary", {"canary": 1, "share": 0.5}), ("shadow", {"shadow": 1})])
def test_a_version_is_not_tried_beside_itself(client, database, name, body):
    make(database)
    (found,) = problem(put(client, version=1, **body), 422, "invalid_payload")["errors"]
    assert f"expected another version as {name} than the one that it stands beside; found version 1" in found["detail"]
    assert num_rows(database, Alias) == 0


def test_versions_of_other_classes_do_not_stand_beside_each_other(client, database):
    model_id = make(database, num_versions=1)
    with database.write() as session:
        of = session.get_one(Model, model_id)
        factories.version(session, of, 2, spec={**factories.SPEC, "labels": ["red", "blue"]})
    problem(put(client, version=1, shadow=2), 409, "label_change")
    problem(put(client, version=1, canary=2, share=0.5), 409, "label_change")


def test_an_alias_rolls_back_to_what_it_meant_before(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 3)
    back = f"{URL}/colours/aliases/production/rollback"
    problem(client.post(back), 404, "not_found")
    put(client, version=1)
    problem(client.post(back), 409, "nothing_before")
    put(client, version=1, shadow=3)
    problem(client.post(back), 409, "nothing_before")
    put(client, version=3)
    body = client.post(back).json()
    assert (body["version"], body["canary"]) == (1, None)
    assert client.get(f"{URL}/colours").json()["aliases"] == {"production": 1}
    assert client.post(back).json()["version"] == 3
    client.delete(f"{URL}/colours/aliases/production")
    put(client, version=2)
    assert client.post(back).json()["version"] == 3, "what it meant before it was taken away counts"


def test_a_rollback_ends_the_canary_before_it_moves_the_version(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 3)
    put(client, version=1)
    back = f"{URL}/colours/aliases/production/rollback"
    for share in (0.1, 0.5):
        put(client, version=1, canary=3, share=share, shadow=2)
    body = client.post(back).json()
    assert [body[key] for key in ("version", "canary", "share", "shadow")] == [1, None, None, None]
    problem(client.post(back), 409, "nothing_before")
    put(client, version=2)
    put(client, version=2, canary=3, share=0.5)
    body = client.post(back).json()
    assert (body["version"], body["canary"]) == (2, None)
    assert client.post(back).json()["version"] == 1
    assert client.delete(f"{URL}/colours/versions/3").status_code == 204, "nothing means it any more"


def test_two_rollbacks_at_once_end_one_canary(client, tmp_path):
    """Not a canary and a good version: the second one was meant for the canary as well."""
    state = client.app.state.graft
    publish(state, tmp_path / "made", "colours", 3)
    put(client, version=1)
    put(client, version=2)
    put(client, version=2, canary=3, share=0.5)
    where = ("default", "colours", "production")
    with state.database.read() as session:
        tried = aliases.before(session, *where)
    assert client.post(f"{URL}/colours/aliases/production/rollback").json()["canary"] is None
    with pytest.raises(Conflict, match="another one has moved it"), state.database.write() as session:
        aliases.roll_back(session, *where, tried)
    assert client.get(f"{URL}/colours").json()["aliases"] == {"production": 2}


def test_a_rollback_passes_over_versions_that_were_deleted(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 4)
    for version in (1, 4, 2):
        put(client, version=version)
    back = f"{URL}/colours/aliases/production/rollback"
    assert client.delete(f"{URL}/colours/versions/4").status_code == 204
    assert client.post(back).json()["version"] == 1
    assert client.delete(f"{URL}/colours/versions/2").status_code == 204
    assert "beside 2, 4, deleted since; PUT" in problem(client.post(back), 409, "nothing_before")["detail"]


def test_an_alias_that_never_was_has_no_history(client, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 1)
    detail = problem(client.get(f"{URL}/colours/aliases/prodution"), 404, "not_found")["detail"]
    assert "found none named 'prodution'; see GET /api/v1/models/colours" in detail


def head(client, version):
    with client.app.state.graft.database.read() as session:
        return f"{models.version(session, 'default', 'colours', version).prefix}/head.onnx"


def test_an_alias_is_not_moved_to_what_cannot_be_served(client, storage, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 3)
    put(client, version=3)
    put(client, version=1)
    path = tmp_path / "damaged"
    path.write_bytes(b"text")
    storage.put(head(client, 2), path)
    for body in ({"version": 2}, {"version": 1, "canary": 2, "share": 0.5}, {"version": 1, "shadow": 2}):
        detail = problem(put(client, **body), 409, "version_unfit")["detail"]
        assert "version 2 of 'colours'" in detail
    back = f"{URL}/colours/aliases/production/rollback"
    assert client.post(back).json()["version"] == 3
    history = client.get(f"{URL}/colours/aliases/production").json()["data"]
    assert [row["version"] for row in history] == [3, 1, 3]
    assert client.get("/v2/models/colours/versions/2/ready").status_code == 503
    assert client.get("/v2/models/colours/versions/1/ready").status_code == 200


def test_an_alias_is_not_rolled_back_to_what_cannot_be_served(client, storage, tmp_path):
    publish(client.app.state.graft, tmp_path / "made", "colours", 2)
    put(client, version=1)
    put(client, version=2)
    client.app.state.graft.engine.pool.clear()
    storage.remove(Stored(head(client, 1), 0, 0.0))
    problem(client.post(f"{URL}/colours/aliases/production/rollback"), 409, "version_unfit")
    assert client.get(f"{URL}/colours").json()["aliases"] == {"production": 2}
