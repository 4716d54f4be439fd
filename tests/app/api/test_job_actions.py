"""What may be asked of a job in each of its states, on both databases."""

import pytest

from app.db.models import Job
from app.services import attempts
from tests import factories
from tests.app.api.made_jobs import STATES, URL, body, make_job
from tests.checks import problem
from tests.factories import files_below

ACTIONS = {
    ("cancel", "queued"): "cancelled",
    ("cancel", "running"): "running",
    ("stop", "running"): "running",
    ("retry", "failed"): "queued",
    ("retry", "cancelled"): "queued",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ["cancel", "stop", "retry"])
def test_actions_in_every_state(client, database, action, state):
    job_id = make_job(database, state=state)
    answer = client.post(f"{URL}/{job_id}/{action}")
    wanted = ACTIONS.get((action, state))
    if wanted is None:
        problem(answer, 409, "invalid_state")
        wanted = state
    else:
        assert answer.status_code == (202 if action == "retry" else 200)
        assert answer.json()["state"] == wanted
    assert client.get(f"{URL}/{job_id}").json()["state"] == wanted
    with database.read() as session:
        request = session.get_one(Job, job_id).request
    assert request == (action if wanted == state == "running" and action != "retry" else None)


@pytest.mark.parametrize("action", ["cancel", "stop", "retry", "reproduce"])
def test_actions_take_no_body(client, database, action):
    job_id = make_job(database, state="running")
    refused = problem(client.post(f"{URL}/{job_id}/{action}", json={"seed": 7}), 422, "invalid_payload")
    assert [one["pointer"] for one in refused["errors"]] == ["/body/seed"]
    assert client.get(f"{URL}/{job_id}").json()["state"] == "running"
    expected = 409 if action in ("retry", "reproduce") else 200
    assert client.post(f"{URL}/{job_id}/{action}", json={}).status_code == expected


def test_stop_after_cancel_is_refused(client, database):
    job_id = make_job(database, state="running")
    client.post(f"{URL}/{job_id}/cancel")
    assert "being cancelled" in problem(client.post(f"{URL}/{job_id}/stop"), 409, "invalid_state")["detail"]


def test_retry_forgets_the_failure(client, database, home):
    with database.write() as session:
        job = factories.job(session, state="running", losses=2)
        attempts.fail(session, job, "diverged", "not finite")
    failed = client.get(f"{URL}/{job.id}").json()
    assert failed["failure"] == {"code": "diverged", "message": "not finite"}
    assert failed["finished_at"]
    key = {"Idempotency-Key": "once"}
    answer = client.post(f"{URL}/{job.id}/retry", headers=key)
    again = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{URL}/{job.id}")
    assert (again["failure"], again["finished_at"]) == (None, None)
    replayed = client.post(f"{URL}/{job.id}/retry", headers=key)
    assert (replayed.status_code, replayed.headers["location"], replayed.json()) == (
        202,
        answer.headers["location"],
        again,
    )
    problem(client.post(f"{URL}/{job.id}/retry"), 409, "invalid_state")
    with database.read() as session:
        assert session.get_one(Job, job.id).losses == 0
    assert len(files_below(home / "broker" / "messages")) == 1


@pytest.mark.parametrize("kind", ["ingest", "backbone"])
def test_jobs_whose_input_is_gone_cannot_be_retried(client, database, kind):
    job_id = make_job(database, kind=kind, state="failed", inputs={"file": "a", "backbone_id": "b"})
    problem(client.post(f"{URL}/{job_id}/retry"), 400, "not_retryable")


def test_cancelled_ingestion_leaves_no_upload_and_no_waiting_dataset(client, home):
    archive = factories.pack(factories.pictures(1))
    made = client.post("/api/v1/datasets", files={"file": ("a.zip", archive)}, data={"name": "a"}).json()
    assert client.post(f"{URL}/{made['job_id']}/cancel").json()["state"] == "cancelled"
    found = client.get(f"/api/v1/datasets/{made['id']}").json()
    assert found["state"] == "invalid"
    assert found["failure"]["code"] == "cancelled"
    assert files_below(home / "storage") == []


def test_cancel_drops_what_waits_for_it(client, database, dataset_id):
    first = client.post(URL, json=body(dataset_id)).json()["id"]
    second = client.post(URL, json=body(dataset_id, depends_on=[first, first])).json()["id"]
    third = client.post(URL, json=body(dataset_id, depends_on=[second])).json()["id"]
    free = client.post(URL, json=body(dataset_id)).json()["id"]
    client.post(f"{URL}/{first}/cancel")
    states = [client.get(f"{URL}/{job}").json()["state"] for job in (first, second, third, free)]
    assert states == ["cancelled", "cancelled", "cancelled", "queued"]
    last = client.get(f"{URL}/{second}/events").json()["data"][-1]
    assert first in last["message"]


def test_a_job_cannot_wait_for_one_that_has_failed(client, database, dataset_id):
    for state in ("failed", "cancelled"):
        lost = make_job(database, state=state)
        found = problem(client.post(URL, json=body(dataset_id, depends_on=[lost])), 409, "invalid_state")
        assert lost in found["detail"]
    done = make_job(database, state="succeeded")
    waiting = client.post(URL, json=body(dataset_id, depends_on=[done]))
    assert waiting.status_code == 202


def test_a_dropped_job_is_retried_after_what_it_waits_for(client, database, dataset_id):
    first = client.post(URL, json=body(dataset_id)).json()["id"]
    second = client.post(URL, json=body(dataset_id, depends_on=[first])).json()["id"]
    client.post(f"{URL}/{first}/cancel")
    problem(client.post(f"{URL}/{second}/retry"), 409, "invalid_state")
    assert client.post(f"{URL}/{first}/retry").status_code == 202
    assert client.post(f"{URL}/{second}/retry").status_code == 202


@pytest.mark.parametrize("kind", ["ingest", "backbone"])
def test_only_transfers_can_be_stopped(client, database, kind):
    job_id = make_job(database, kind=kind, state="running")
    found = problem(client.post(f"{URL}/{job_id}/stop"), 409, "invalid_state")
    assert kind in found["detail"]


def test_retry_begins_at_the_beginning(client, database):
    job_id = make_job(database, state="failed", progress={"fraction": 0.7, "stage": "train", "eta_seconds": 3.0})
    wanted = {"fraction": 0.0, "stage": "queued", "eta_seconds": None}
    assert client.post(f"{URL}/{job_id}/retry").json()["progress"] == wanted
    assert client.get(f"{URL}/{job_id}").json()["progress"] == wanted


def test_retry_without_its_dataset_is_refused(client, database, dataset_id):
    job_id = make_job(database, state="failed", dataset_id=dataset_id)
    assert client.delete(f"/api/v1/datasets/{dataset_id}").status_code == 204
    found = problem(client.post(f"{URL}/{job_id}/retry"), 409, "invalid_state")
    assert dataset_id in found["detail"]
