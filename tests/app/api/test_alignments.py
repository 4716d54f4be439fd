"""The routes of alignments: ask, look, fetch, delete, and everything that is refused."""

import hashlib

import pytest
from sqlalchemy import func, select

from app.db.alignments import Alignment
from app.db.models import Job
from app.services import datasets
from tests import factories
from tests.checks import problem

URL = "/api/v1/alignments"
MOBILENET = "torchvision/mobilenet_v2"


@pytest.fixture
def wish(database):
    """A body that is accepted: two ready datasets and a backbone of the catalogue."""
    with database.write() as session:
        source, target = (factories.dataset(session).id for _ in range(2))
    return {"method": "coral", "source": source, "target": target, "backbone": factories.BACKBONE}


def counts(database):
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Alignment)), session.scalar(
            select(func.count()).select_from(Job)
        )


def test_asking_makes_a_job_and_a_number(client, database, wish):
    first = client.post(URL, json=wish)
    body = first.json()
    assert (first.status_code, first.headers["Location"]) == (202, f"{URL}/{body['id']}")
    assert (body["number"], body["state"], body["method"], body["layer"]) == (1, "fitting", "coral", "pooled")
    assert (body["from_backbone"], body["digest"], body["result"], body["failure"]) == (
        factories.BACKBONE, None, None, None,
    )  # fmt: skip
    second = client.post(URL, json={**wish, "method": "z_score"}).json()
    assert second["number"] == 2
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["state"], job["dataset"]) == ("align", "queued", wish["source"])
    assert job["recipe"] == {**wish, "seed": 0, "shrinkage": None}
    listed = client.get(URL, params={"limit": 1}).json()
    assert ([row["id"] for row in listed["data"]], listed["has_more"]) == ([second["id"]], True)
    after = client.get(URL, params={"after": second["id"]}).json()
    assert [row["id"] for row in after["data"]] == [body["id"]]
    with database.read() as session:
        assert session.get_one(Job, body["job_id"]).inputs == {"alignment_id": body["id"]}


def test_the_same_key_asks_once(client, database, wish):
    headers = {"Idempotency-Key": "k1"}
    first, again = (client.post(URL, json=wish, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["Location"] == first.headers["Location"]
    problem(client.post(URL, json={**wish, "seed": 1}, headers=headers), 422, "idempotency_mismatch")
    assert counts(database) == (1, 1)


REFUSED = {
    "unknown method": ({"method": "magic"}, 422, "invalid_payload"),
    "no method": ({"method": None}, 422, "invalid_payload"),
    "unknown field": ({"strength": 1}, 422, "invalid_payload"),
    "out of bounds": ({"shrinkage": 2}, 422, "invalid_payload"),
    "one dataset": ({"target": "SOURCE"}, 422, "invalid_payload"),
    "no target": ({"target": None}, 422, "invalid_payload"),
    "nothing differs": ({"method": "ridge", "target": "SOURCE"}, 422, "invalid_payload"),
    "unknown source": ({"source": "ds_0"}, 404, "not_found"),
    "unknown target": ({"target": "ds_0"}, 404, "not_found"),
    "unknown backbone": ({"backbone": "timm/none"}, 404, "unknown_backbone"),
    "auto": ({"backbone": "auto"}, 404, "unknown_backbone"),
    "unknown other backbone": ({"method": "ridge", "from_backbone": "timm/none"}, 404, "unknown_backbone"),
    "widths": ({"method": "affine", "from_backbone": "timm/tf_efficientnet_lite4", "target": None}, 202, None),
    "other widths": ({"method": "affine", "from_backbone": "torchvision/resnet18"}, 400, "width_mismatch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client, database, wish, case):
    changes, status, code = REFUSED[case]
    changes = {name: wish["source"] if value == "SOURCE" else value for name, value in changes.items()}
    answer = client.post(URL, json={**wish, **changes})
    if code is None:
        assert answer.status_code == status, answer.text
        return
    problem(answer, status, code)
    assert counts(database) == (0, 0)


WRONG = {
    "fields": ({"strength": 1, "shrinkage": 2}, {"/body/strength", "/body/shrinkage"}),
    "a missing one": ({"backbone": ...}, {"/body/backbone"}),
    "strings": ({"seed": "1", "shrinkage": "0.5"}, {"/body/seed", "/body/shrinkage"}),
    "one of a method's own": ({"method": "ridge", "strength": 0}, {"/body/strength"}),
    "named as a method is": ({"coral": 1}, {"/body/coral"}),
    "all of them together": ({"target": "SOURCE"}, {"/body"}),
    "the method": ({"method": "magic"}, {"/body"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_pointed_at_where_the_client_wrote_it(client, wish, case):
    changes, pointers = WRONG[case]
    changes = {name: wish["source"] if value == "SOURCE" else value for name, value in changes.items()}
    body = {name: value for name, value in {**wish, **changes}.items() if value is not ...}
    found = problem(client.post(URL, json=body), 422, "invalid_payload")
    assert {item["pointer"] for item in found["errors"]} == pointers


def test_a_dataset_that_is_not_ready_is_refused(client, database, wish):
    with database.write() as session:
        waiting = factories.dataset(session, state="ingesting").id
    problem(client.post(URL, json={**wish, "target": waiting}), 409, "dataset_not_ready")
    assert counts(database) == (0, 0)


def test_datasets_in_use_stay(client, wish):
    made = client.post(URL, json=wish).json()
    for dataset in (wish["source"], wish["target"]):
        assert problem(client.delete(f"/api/v1/datasets/{dataset}"), 409, "in_use")["users"] == [made["job_id"]]
    assert problem(client.delete(f"{URL}/{made['id']}"), 409, "in_use")["users"] == [made["job_id"]]
    client.post(f"/api/v1/jobs/{made['job_id']}/cancel")
    ended = client.get(f"{URL}/{made['id']}").json()
    assert (ended["state"], ended["failure"]["code"]) == ("failed", "cancelled")
    problem(client.post(f"/api/v1/jobs/{made['job_id']}/retry"), 400, "not_retryable")
    assert client.delete(f"/api/v1/datasets/{wish['target']}").status_code == 204
    assert client.delete(f"{URL}/{made['id']}").status_code == 204
    problem(client.get(f"{URL}/{made['id']}"), 404, "not_found")
    assert client.post(URL, json={**wish, "target": wish["source"]}).status_code == 422


def test_a_number_is_not_given_out_again(client, database, wish):
    made = client.post(URL, json=wish).json()
    client.post(f"/api/v1/jobs/{made['job_id']}/cancel")
    client.delete(f"{URL}/{made['id']}")
    assert client.post(URL, json=wish).json()["number"] == 2


def test_files_and_deletion(client, database, storage, tmp_path):
    with database.write() as session:
        row = factories.fitted(session, storage, tmp_path / "made", [2.0] * 6, [1.0] * 6)
        fitting = factories.alignment(session, number=2, state="fitting", result=None).id
    answer = client.get(f"{URL}/{row.id}/files/alignment.onnx")
    assert hashlib.sha256(answer.content).hexdigest() == client.get(f"{URL}/{row.id}").json()["digest"]
    assert "attachment" in answer.headers["content-disposition"]
    problem(client.get(f"{URL}/{row.id}/files/other"), 404, "not_found")
    problem(client.get(f"{URL}/{fitting}/files/alignment.onnx"), 409, "alignment_not_ready")
    assert client.delete(f"{URL}/{row.id}").status_code == 204
    assert list(storage.list("bundles")) == []
    problem(client.get(f"{URL}/{row.id}"), 404, "not_found")


def test_another_projects_alignment_is_not_seen(client, database):
    with database.write() as session:
        row = factories.alignment(session, project_id=factories.project(session, "other"))
    problem(client.get(f"{URL}/{row.id}"), 404, "not_found")
    assert client.get(URL).json()["data"] == []


def test_methods_explain_themselves(shared_client):
    rows = shared_client.get(f"{URL}/methods").json()["data"]
    assert [row["method"] for row in rows] == [
        "z_score", "moment_matching", "coral", "whitening", "optimal_transport", "affine", "ridge", "procrustes",
    ]  # fmt: skip
    for row in rows:
        assert row["paper"]
        assert row["summary"].endswith(".")
        for name, field in row["json_schema"]["properties"].items():
            assert name == "method" or field["description"]


def test_deleting_a_dataset_leaves_its_alignments(client, database, wish):
    with database.write() as session:
        row = factories.alignment(session, recipe={**wish, "method": "z_score"})
        datasets.delete(session, "default", wish["source"])
    assert client.get(f"{URL}/{row.id}").json()["source"] == wish["source"]
