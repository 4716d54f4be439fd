"""Routes of datasets, on both databases."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.api.deps import get_project
from app.db.base import new_id
from app.db.models import Dataset, IdempotencyKey, Job, Problem
from app.main import create_app
from app.services import datasets, jobs
from app.states import JobState
from app.storage import FolderStorage
from tests import factories
from tests.checks import problem
from tests.factories import files_below

URL = "/api/v1/datasets"
UNKNOWN = f"{URL}/ds_0"


def upload(client, name="colours", body=None, headers=None, **fields):
    body = factories.pack(factories.pictures(1)) if body is None else body
    return client.post(URL, files={"file": ("data.zip", body)}, data={"name": name, **fields}, headers=headers)


def num_rows(database, table):
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def kept_files(home):
    """Uploads, objects and bells that lie in the home."""
    return files_below(home / "scratch", home / "storage", home / "broker" / "messages")


def test_upload_makes_dataset_and_job(client, home):
    answer = upload(client, seed="3", format="folders")
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{URL}/{body['id']}"
    assert body["state"] == "ingesting"
    assert (body["name"], body["task"], body["seed"], body["modality"]) == ("colours", "classification", 3, "image")
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["state"], job["dataset"]) == ("ingest", "queued", body["id"])
    assert files_below(home / "scratch") == []
    assert len(files_below(home / "storage")) == 1
    assert len(files_below(home / "broker" / "messages")) == 1
    assert client.get(answer.headers["Location"]).json() == body


@pytest.mark.parametrize(("fields", "task"), [({}, None), ({"task": "multi_label"}, "multi_label")])
def test_where_no_task_is_named_the_labels_say_it(client, database, fields, task):
    job_id = upload(client, **fields).json()["job_id"]
    with database.read() as session:
        assert session.get_one(Job, job_id).inputs["task"] == task


def test_stored_archive_is_what_was_sent(client, home):
    body = factories.pack(factories.pictures(2))
    upload(client, body=body)
    (stored,) = files_below(home / "storage")
    assert Path(stored).read_bytes() == body


REFUSED_UPLOADS = {
    "not an archive": ({"body": b"just some text " * 50}, 400, "not_an_archive"),
    "empty file": ({"body": b""}, 400, "not_an_archive"),
    "unknown task": ({"task": "poetry"}, 400, "unsupported_task"),
    "unknown format": ({"format": "floppy"}, 400, "unknown_format"),
    "bad name": ({"name": "../up"}, 422, "invalid_payload"),
    "long name": ({"name": "n" * 101}, 422, "invalid_payload"),
    "negative seed": ({"seed": "-1"}, 422, "invalid_payload"),
    "unknown field": ({"colour": "red"}, 422, "invalid_payload"),
    "unknown base": ({"base": "ds_0"}, 404, "not_found"),
    "remove without base": ({"remove": '["a"]'}, 400, "base_missing"),
    "remove that is no JSON": ({"base": "ds_0", "remove": "a,b"}, 422, "invalid_payload"),
    "remove that is no list": ({"base": "ds_0", "remove": '{"a": 1}'}, 422, "invalid_payload"),
    "relabel that is no object": ({"base": "ds_0", "relabel": "[]"}, 422, "invalid_payload"),
    "empty key": ({"headers": {"Idempotency-Key": ""}}, 422, "invalid_payload"),
    "long key": ({"headers": {"Idempotency-Key": "k" * 256}}, 422, "invalid_payload"),
}


@pytest.mark.parametrize("case", REFUSED_UPLOADS)
def test_refused_upload_leaves_nothing_behind(client, database, home, case):
    arguments, status, code = REFUSED_UPLOADS[case]
    problem(upload(client, **arguments), status, code)
    assert kept_files(home) == []
    assert [num_rows(database, table) for table in (Dataset, Job, IdempotencyKey)] == [0, 0, 0]


def test_refused_fields_are_pointed_at(light_client):
    body = problem(upload(light_client, name="a b", seed="x", colour="red"), 422, "invalid_payload")
    assert {item["pointer"] for item in body["errors"]} == {"/name", "/seed", "/colour"}


def test_upload_without_file_or_form(light_client, home):
    for other in ({"data": {"name": "a"}}, {"json": {"name": "a"}}, {"json": {}}, {"content": b"PK"}):
        found = problem(light_client.post(URL, **other), 415, "unsupported_media_type")
        assert "multipart/form-data" in found["detail"]
    problem(light_client.post(URL, files={"other": ("a.zip", b"PK\x03\x04")}, data={"name": "a"}), 400, "file_missing")
    problem(light_client.post(URL, files={"name": (None, "a")}), 400, "file_missing")
    no_boundary = light_client.post(URL, content=b"a", headers={"Content-Type": "multipart/form-data"})
    problem(no_boundary, 400, "bad_request")
    changed = problem(light_client.post(URL, json={"name": "a b", "base": "ds_0", "seed": "1"}), 422, "invalid_payload")
    assert {item["pointer"] for item in changed["errors"]} == {"/body/name", "/body/seed"}
    problem(light_client.post(URL, content=b"{", headers={"Content-Type": "application/json"}), 422, "invalid_payload")
    problem(light_client.post(URL, json=["a"]), 422, "invalid_payload")
    assert kept_files(home) == []


@pytest.mark.parametrize("limit", ["max_upload_bytes", "max_json_bytes"])
def test_upload_over_the_limit(light, home, limit):
    with TestClient(create_app(light.model_copy(update={limit: 1000})), base_url="http://127.0.0.1") as client:
        if limit == "max_json_bytes":
            body = {"name": "a", "base": "ds_0", "remove": ["x" * 1000]}
            problem(client.post(URL, json=body), 413, "body_too_large")
        else:
            problem(upload(client, body=b"PK\x03\x04" + bytes(2000)), 413, "body_too_large")
    assert kept_files(home) == []


def test_full_disk_is_said_and_leaves_nothing(client, database, home, fill_disk):
    fill_disk()
    problem(upload(client), 507, "insufficient_storage")
    assert kept_files(home) == []
    assert [num_rows(database, table) for table in (Dataset, Job)] == [0, 0]


def test_same_key_gets_the_same_answer_once(client, database, home):
    headers = {"Idempotency-Key": "abc"}
    first, second = upload(client, headers=headers), upload(client, headers=headers)
    assert second.status_code == 202
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert [num_rows(database, table) for table in (Dataset, Job)] == [1, 1]
    assert len(files_below(home / "storage")) == 1
    assert files_below(home / "scratch") == []


def test_same_key_with_another_upload_is_refused(client, database):
    headers = {"Idempotency-Key": "abc"}
    upload(client, headers=headers)
    problem(upload(client, name="other", headers=headers), 422, "idempotency_mismatch")
    other = factories.pack(factories.pictures(2))
    problem(upload(client, body=other, headers=headers), 422, "idempotency_mismatch")
    assert num_rows(database, Dataset) == 1


def test_refused_request_does_not_use_up_its_key(client):
    headers = {"Idempotency-Key": "abc"}
    problem(upload(client, task="poetry", headers=headers), 400, "unsupported_task")
    assert upload(client, headers=headers).status_code == 202


def test_child_takes_task_and_seed_of_its_base(client, database):
    with database.write() as session:
        base = factories.dataset(session, seed=7).id
        busy = factories.dataset(session, state="ingesting").id
    body = {"name": "child", "base": base, "remove": ["a"], "relabel": {"b": "red"}}
    for seed in (0, 1):
        refused = problem(client.post(URL, json={**body, "seed": seed}), 400, "seed_mismatch")
        assert "the base's seed 7" in refused["detail"]
    assert client.post(URL, json={**body, "seed": 7}).json()["seed"] == 7
    answer = client.post(URL, json=body)
    assert answer.status_code == 202
    assert (answer.json()["base"], answer.json()["seed"]) == (base, 7)
    with database.read() as session:
        inputs = session.get_one(Job, answer.json()["job_id"]).inputs
    assert (inputs["archive"], inputs["remove"], inputs["relabel"]) == (None, ["a"], {"b": "red"})
    problem(client.post(URL, json={**body, "base": busy}), 409, "dataset_not_ready")
    odd = {"remove": ["\ud800"]}
    answer = client.post(URL, content=json.dumps({**body, **odd}), headers={"Content-Type": "application/json"})
    assert "surrogate" in problem(answer, 400, "bad_request")["detail"]
    for changes, said in (({"relabel": {"a": "red"}}, "found a in both"), ({"relabel": {"b": ""}}, "found none for b")):
        assert said in problem(client.post(URL, json={**body, **changes}), 400, "bad_request")["detail"]
    problem(client.post(URL, json={**body, "task": "regression"}), 400, "task_mismatch")


def test_list_is_newest_first_in_pages(client, database):
    with database.write() as session:
        ids = [factories.dataset(session, name=f"n{number}").id for number in range(5)]
        other = factories.project(session, "other")
        hidden = factories.dataset(session, project_id=other).id
    newest = sorted(ids, reverse=True)
    first = client.get(URL, params={"limit": 2}).json()
    assert ([row["id"] for row in first["data"]], first["has_more"]) == (newest[:2], True)
    second = client.get(URL, params={"limit": 2, "after": newest[1]}).json()
    assert ([row["id"] for row in second["data"]], second["has_more"]) == (newest[2:4], True)
    last = client.get(URL, params={"limit": 2, "after": newest[3]}).json()
    assert ([row["id"] for row in last["data"]], last["has_more"]) == (newest[4:], False)
    assert client.get(URL, params={"limit": 5}).json()["has_more"] is False
    assert hidden not in {row["id"] for row in client.get(URL).json()["data"]}
    problem(client.get(f"{URL}/{hidden}"), 404, "not_found")
    problem(client.delete(f"{URL}/{hidden}"), 404, "not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", f"after={'a' * 101}"])
def test_bad_page_is_refused(light_client, query):
    problem(light_client.get(f"{URL}?{query}"), 422, "invalid_payload")


def test_unknown_dataset(light_client):
    for method, path in [("GET", ""), ("GET", "/problems"), ("GET", "/samples"), ("DELETE", "")]:
        problem(light_client.request(method, UNKNOWN + path), 404, "not_found")


def test_failed_dataset_says_why(client, database):
    with database.write() as session:
        row = factories.dataset(session, state="invalid", failure_code="one_class", failure_message="only red")
    found = client.get(f"{URL}/{row.id}").json()
    assert found["failure"] == {"code": "one_class", "message": "only red"}
    body = problem(client.get(f"{URL}/{row.id}/samples"), 409, "dataset_not_ready")
    assert "only red" in body["detail"]


def test_problems_in_pages(client, database):
    with database.write() as session:
        one, other = factories.dataset(session), factories.dataset(session)
        for seq in (1, 2, 3):
            factories.problem(session, one.id, seq)
        factories.problem(session, other.id, 1)
    first = client.get(f"{URL}/{one.id}/problems", params={"limit": 2}).json()
    assert ([row["seq"] for row in first["data"]], first["has_more"]) == ([1, 2], True)
    rest = client.get(f"{URL}/{one.id}/problems", params={"after": 2}).json()
    last = {"severity": "warning", "code": "duplicate", "path": "3.png", "message": "two", "fix": "remove one"}
    assert rest == {"data": [{"seq": 3, **last}], "has_more": False}
    problem(client.get(f"{URL}/{one.id}/problems?after=-1"), 422, "invalid_payload")


def store_index(storage: FolderStorage, prefix: str, labels, tmp_path):
    table = pa.table(
        {
            "id": [f"s{number}" for number in range(len(labels))],
            "path": [f"{number}.png" for number in range(len(labels))],
            "split": [("train", "val", "test")[number % 3] for number in range(len(labels))],
            "sha256": ["a" * 64] * len(labels),
            "width": pa.array([4] * len(labels), pa.uint32()),
            "height": pa.array([5] * len(labels), pa.uint32()),
            "label": pa.array(labels),
        }
    )
    pq.write_table(table, tmp_path / "index.parquet")
    storage.put(f"{prefix}/index.parquet", tmp_path / "index.parquet")
    description = {"label_columns": [{"name": "label", "kind": "class", "names": ["blue", "red"]}]}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    storage.put(f"{prefix}/dataset.json", tmp_path / "dataset.json")


def test_samples_in_pages_by_split_and_label(client, database, storage, tmp_path):
    with database.write() as session:
        row = factories.dataset(session)
    store_index(storage, datasets.prefix("default", row.id), [0, 1, 0, 1, 0, 1, 0], tmp_path)
    url = f"{URL}/{row.id}/samples"

    def ids(**query):
        page = client.get(url, params=query).json()
        return [sample["id"] for sample in page["data"]], page["has_more"]

    assert ids() == ([f"s{number}" for number in range(7)], False)
    assert ids(limit=3) == (["s0", "s1", "s2"], True)
    assert ids(limit=3, after="s2") == (["s3", "s4", "s5"], True)
    assert ids(limit=3, after="s5") == (["s6"], False)
    assert ids(split="val") == (["s1", "s4"], False)
    assert ids(label="red") == (["s1", "s3", "s5"], False)
    assert ids(label="red", split="train", limit=1) == (["s3"], False)
    assert ids(label="mauve") == ([], False)
    assert client.get(url).json()["data"][1] == {
        "id": "s1", "path": "1.png", "label": "red", "labels": None, "split": "val",
        "sha256": "a" * 64, "width": 4, "height": 5,
    }  # fmt: skip
    problem(client.get(url, params={"after": "s9"}), 404, "not_found")
    problem(client.get(url, params={"split": "dev"}), 422, "invalid_payload")


def test_delete_frees_rows_and_files(client, database, storage, tmp_path):
    with database.write() as session:
        row, sibling = factories.dataset(session), factories.dataset(session)
        factories.problem(session, row.id, 1)
        ended = factories.job(session, dataset_id=row.id, state="succeeded").id
    for one in (row, sibling):
        store_index(storage, datasets.prefix("default", one.id), [0, 1], tmp_path)
    assert client.delete(f"{URL}/{row.id}").status_code == 204
    prefix = datasets.prefix("default", sibling.id)
    assert list(storage.list("datasets")) == [f"{prefix}/dataset.json", f"{prefix}/index.parquet"]
    assert num_rows(database, Problem) == 0
    problem(client.get(f"{URL}/{row.id}"), 404, "not_found")
    # The job stays, and says that its dataset is gone.
    assert client.get(f"/api/v1/jobs/{ended}").json()["dataset"] is None


def test_delete_of_a_used_dataset_names_the_users(client, database):
    with database.write() as session:
        row = factories.dataset(session)
        child = factories.dataset(session, base_id=row.id)
        active = [factories.job(session, dataset_id=row.id, state=state).id for state in ("queued", "running")]
    body = problem(client.delete(f"{URL}/{row.id}"), 409, "in_use")
    assert set(body["users"]) == {child.id, *active}
    assert num_rows(database, Dataset) == 2
    assert f"datasets that were made from it ({child.id})" in body["detail"]
    assert "/cancel) or wait for their end, and delete those datasets first" in body["detail"]
    client.post(f"/api/v1/jobs/{active[0]}/cancel")
    with database.write() as session:
        jobs.move(session, session.get_one(Job, active[1]), JobState.SUCCEEDED)
    alone = problem(client.delete(f"{URL}/{row.id}"), 409, "in_use")
    assert (alone["users"], "job" in alone["detail"]) == ([child.id], False)
    assert client.delete(f"{URL}/{child.id}").status_code == 204
    assert client.delete(f"{URL}/{row.id}").status_code == 204


def test_delete_of_a_dataset_of_many_users_names_some(client, database):
    with database.write() as session:
        row = factories.dataset(session)
        for _ in range(30):
            factories.dataset(session, base_id=row.id)
    body = problem(client.delete(f"{URL}/{row.id}"), 409, "in_use")
    assert len(body["users"]) == 30
    assert "and 25 more" in body["detail"]


def test_an_invalid_child_holds_nothing_of_its_base(client, database):
    with database.write() as session:
        row = factories.dataset(session)
        child = factories.dataset(session, base_id=row.id, state="invalid")
    assert client.delete(f"{URL}/{row.id}").status_code == 204
    found = client.get(f"{URL}/{child.id}").json()
    assert (found["state"], found["base"]) == ("invalid", None)


def test_other_project_cannot_see_it(light):
    app = create_app(light)
    app.dependency_overrides[get_project] = lambda: "other"
    with TestClient(app, base_url="http://127.0.0.1") as client:
        with client.app.state.graft.database.write() as session:
            row = factories.dataset(session, id=new_id("ds"))
        problem(client.get(f"{URL}/{row.id}"), 404, "not_found")
        assert client.get(URL).json()["data"] == []


def test_form_fields_come_before_or_after_the_file(light_client):
    boundary = "b"
    archive = factories.pack(factories.pictures(1))
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n' + archive + b"\r\n"
    name = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\ncolours\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    for body in (file + name, name + file):
        answer = light_client.post(URL, content=body + b"--b--\r\n", headers=headers)
        assert answer.status_code == 202, json.dumps(answer.json())
