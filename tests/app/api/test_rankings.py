"""The routes of rankings: ask, look, delete, and everything that is refused."""

import pytest
from sqlalchemy import func, select

from app.db.models import Job
from app.db.studies import Ranking
from app.rankings import MAX_BACKBONES
from tests import factories
from tests.checks import problem

URL = "/api/v1/rankings"
MOBILENET = "torchvision/mobilenet_v2"


@pytest.fixture
def wish(database):
    """A body that is accepted."""
    with database.write() as session:
        return {"dataset": factories.dataset(session).id, "backbones": [factories.BACKBONE, MOBILENET]}


def counts(database):
    with database.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) for table in (Ranking, Job))


def test_asking_makes_a_job(client, wish):
    first = client.post(URL, json=wish)
    body = first.json()
    assert (first.status_code, first.headers["Location"]) == (202, f"{URL}/{body['id']}")
    assert body["id"].startswith("rnk_")
    assert (body["state"], body["result"], body["failure"]) == ("running", None, None)
    assert body["request"] == {**wish, "max_minutes": 5.0, "seed": 0}
    job = client.get(f"/api/v1/jobs/{body['job_id']}").json()
    assert (job["kind"], job["state"], job["dataset"], job["seed"]) == ("rank", "queued", wish["dataset"], 0)
    second = client.post(URL, json={"dataset": wish["dataset"], "max_minutes": 1, "seed": 4}).json()
    assert second["request"] == {"dataset": wish["dataset"], "backbones": "auto", "max_minutes": 1.0, "seed": 4}
    listed = client.get(URL, params={"limit": 1}).json()
    assert ([row["id"] for row in listed["data"]], listed["has_more"]) == ([second["id"]], True)
    after = client.get(URL, params={"after": second["id"]}).json()
    assert [row["id"] for row in after["data"]] == [body["id"]]
    assert client.get(first.headers["Location"]).json() == body


def test_the_same_key_asks_once(client, database, wish):
    headers = {"Idempotency-Key": "k1"}
    first, again = (client.post(URL, json=wish, headers=headers) for _ in range(2))
    assert (first.json(), first.headers["Location"]) == (again.json(), again.headers["Location"])
    problem(client.post(URL, json={**wish, "seed": 1}, headers=headers), 422, "idempotency_mismatch")
    assert counts(database) == (1, 1)


REFUSED = {
    "unknown field": ({"recipe": {}}, 422, "invalid_payload"),
    "no dataset": ({"dataset": None}, 422, "invalid_payload"),
    "unknown dataset": ({"dataset": "ds_0"}, 404, "not_found"),
    "other word": ({"backbones": "all"}, 422, "invalid_payload"),
    "no backbone": ({"backbones": []}, 422, "invalid_payload"),
    "too many": ({"backbones": [f"timm/{number}" for number in range(MAX_BACKBONES + 1)]}, 422, "invalid_payload"),
    "twice": ({"backbones": [MOBILENET, factories.BACKBONE, MOBILENET]}, 422, "invalid_payload"),
    "unknown backbone": ({"backbones": [MOBILENET, "timm/none"]}, 404, "unknown_backbone"),
    "auto as a name": ({"backbones": ["auto"]}, 404, "unknown_backbone"),
    "no time": ({"max_minutes": 0}, 422, "invalid_payload"),
    "days": ({"max_minutes": 1441}, 422, "invalid_payload"),
    "a string": ({"max_minutes": "5"}, 422, "invalid_payload"),
    "seed": ({"seed": -1}, 422, "invalid_payload"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client, database, wish, case):
    changes, status, code = REFUSED[case]
    problem(client.post(URL, json={**wish, **changes}), status, code)
    assert counts(database) == (0, 0)


def test_what_is_wrong_is_pointed_at(client, wish):
    found = problem(client.post(URL, json={**wish, "seed": "1", "max_minutes": -1}), 422, "invalid_payload")
    assert {item["pointer"] for item in found["errors"]} == {"/body/seed", "/body/max_minutes"}
    names = {"all": "/body/backbones", 5: "/body/backbones", (): "/body/backbones", ("a", ""): "/body/backbones/1"}
    for value, pointer in names.items():
        backbones = list(value) if isinstance(value, tuple) else value
        found = problem(client.post(URL, json={**wish, "backbones": backbones}), 422, "invalid_payload")
        assert [item["pointer"] for item in found["errors"]] == [pointer]
    twice = problem(client.post(URL, json={**wish, "backbones": [MOBILENET] * 2}), 422, "invalid_payload")
    assert MOBILENET in twice["errors"][0]["detail"]


DATASETS = {
    "in the making": ({"state": "ingesting"}, 409, "dataset_not_ready"),
    "of another task": ({"task": "regression"}, 400, "unsupported_task"),
    "without labels": ({"classes": []}, 400, "labels_missing"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_datasets_that_cannot_be_ranked_on(client, database, wish, case):
    fields, status, code = DATASETS[case]
    with database.write() as session:
        other = factories.dataset(session, **fields).id
    problem(client.post(URL, json={**wish, "dataset": other}), status, code)
    assert counts(database) == (0, 0)


def test_weights_that_cannot_be_had_are_refused_offline(settings, database, wish):
    from starlette.testclient import TestClient

    from app.main import create_app

    with database.write() as session:
        factories.worker(session, backbones=[factories.BACKBONE])
    offline = settings.model_copy(update={"offline": True})
    with TestClient(create_app(offline), base_url="http://127.0.0.1") as client:
        answer = problem(client.post(URL, json=wish), 400, "weights_unavailable")
        assert MOBILENET in answer["detail"]
        assert client.post(URL, json={**wish, "backbones": [factories.BACKBONE]}).status_code == 202


def test_deleting(client, database, wish):
    made = client.post(URL, json=wish).json()
    place = f"{URL}/{made['id']}"
    assert problem(client.delete(place), 409, "in_use")["users"] == [made["job_id"]]
    assert problem(client.delete(f"/api/v1/datasets/{wish['dataset']}"), 409, "in_use")["users"] == [made["job_id"]]
    client.post(f"/api/v1/jobs/{made['job_id']}/cancel")
    ended = client.get(place).json()
    assert (ended["state"], ended["failure"]["code"]) == ("failed", "cancelled")
    assert client.delete(place).status_code == 204
    problem(client.get(place), 404, "not_found")
    problem(client.delete(place), 404, "not_found")
    assert counts(database)[0] == 0


def test_a_ranking_whose_job_is_retried_runs_again(client, wish):
    made = client.post(URL, json=wish).json()
    place, job = f"{URL}/{made['id']}", f"/api/v1/jobs/{made['job_id']}"
    client.post(f"{job}/cancel")
    assert client.get(place).json()["state"] == "failed"
    again = client.post(f"{job}/retry")
    assert (again.status_code, again.json()["state"]) == (202, "queued")
    found = client.get(place).json()
    assert (found["state"], found["failure"], found["finished_at"]) == ("running", None, None)
    problem(client.delete(place), 409, "in_use")
    # Once the question is gone there is nothing to answer.
    client.post(f"{job}/cancel")
    assert client.delete(place).status_code == 204
    answer = problem(client.post(f"{job}/retry"), 409, "invalid_state")
    assert "post it again" in answer["detail"]
    assert client.get(job).json()["state"] == "cancelled"


def test_another_projects_ranking_is_not_seen(client, database):
    with database.write() as session:
        owner = factories.project(session, "other")
        session.add(Ranking(id="rnk_1", project_id=owner, state="ready", request={}, result={}))
    problem(client.get(f"{URL}/rnk_1"), 404, "not_found")
    problem(client.delete(f"{URL}/rnk_1"), 404, "not_found")
    assert client.get(URL).json()["data"] == []
