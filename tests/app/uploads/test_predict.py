"""Predictions over an upload: what is refused, whose the bytes are, and when they go."""

import threading
from datetime import timedelta

import pytest

from app.db.base import now
from app.db.models import Job
from app.services import attempts, outcomes, stored_bytes, upload_sweep, uploads
from tests import factories
from tests.app.api.test_evaluations import SPEC
from tests.checks import problem
from tests.conftest import NUMBERS

ARCHIVE = factories.pack(factories.pictures(2))
URL = "/api/v1/jobs"


@pytest.fixture
def ask(service):
    """Asks for predictions; what is queued at the end is cancelled."""
    name, made = f"colours-{next(NUMBERS)}", []
    with service.state.database.write() as session:
        factories.model(session, name, spec=SPEC)

    def post(headers=None, **fields):
        body = {"kind": "predict", "model": name, **fields}
        answer = service.http.post(URL, json=body, headers=headers)
        if answer.status_code == 202:
            made.append(answer.json()["id"])
        return answer

    yield post
    for job_id in made:
        service.http.post(f"{URL}/{job_id}/cancel")


def row(service, job_id):
    with service.state.database.read() as session:
        return session.get_one(Job, job_id)


def counted(service):
    with service.state.database.read() as session:
        return stored_bytes.of_rows(session).get("default", {}).get("uploads", 0)


def sweep(service):
    upload_sweep.run(service.state.database, service.state.storage, service.state.inbox)


def claimed(service, job_id):
    with service.state.database.write() as session:
        assert attempts.claim(session, ["cpu"], "me", 60).id == job_id


def test_a_job_uses_an_upload_up_and_no_dataset_is_made(service, ask):
    before, num_datasets = counted(service), len(service.http.get("/api/v1/datasets").json()["data"])
    upload_id = service.whole(ARCHIVE, "bilder.zip")
    assert counted(service) == before + len(ARCHIVE)
    answer = ask(upload_id=upload_id, top_k=2)
    made = answer.json()
    assert (answer.status_code, made["dataset"], made["request"]["upload_id"]) == (202, None, upload_id)
    inputs = row(service, made["id"]).inputs
    assert (inputs["archive"], inputs["filename"]) == (f"incoming/default/{upload_id}", "bilder.zip")
    found = service.request("GET", f"/{upload_id}").json()
    assert (found["state"], found["used_by"]) == ("used", made["id"])
    # Its bytes count as before, also when nothing is known of the upload any more,
    assert counted(service) == before + len(ARCHIVE)
    service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
    sweep(service)
    problem(service.request("GET", f"/{upload_id}"), 404, "not_found")
    assert inputs["archive"] in service.stored()
    assert counted(service) == before + len(ARCHIVE)
    # until its job ends.
    assert service.http.post(f"{URL}/{made['id']}/cancel").status_code == 200
    assert inputs["archive"] not in service.stored()
    assert counted(service) == before
    assert len(service.http.get("/api/v1/datasets").json()["data"]) == num_datasets
    detail = problem(service.http.post(f"{URL}/{made['id']}/retry"), 400, "not_retryable")["detail"]
    assert "upload it again" in detail
    detail = problem(service.http.get(f"{URL}/{made['id']}/predictions"), 409, "predictions_not_ready")["detail"]
    assert "cancelled; send the file again" in detail


@pytest.mark.parametrize("ends", ["succeeded", "failed"])
def test_the_bytes_go_with_the_end_of_the_job(service, ask, ends):
    upload_id = service.whole(ARCHIVE)
    job_id = ask(upload_id=upload_id).json()["id"]
    claimed(service, job_id)
    with service.state.database.write() as session:
        if ends == "failed":
            waste = outcomes.fail(session, job_id, "me", "timed_out", "late")
        else:
            result = {"file": f"bundles/default/{job_id}/attempt-1/predictions.parquet", "metrics": {"num_samples": 6}}
            waste = outcomes.succeed(session, job_id, "me", result)
    assert waste == [f"incoming/default/{upload_id}", f"checkpoints/default/{job_id}"]
    assert row(service, job_id).state == ends
    # Where nobody has come to it, the sweep takes them away.
    service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
    sweep(service)
    assert f"incoming/default/{upload_id}" not in service.stored()


def test_of_many_jobs_one_gets_it(service, ask):
    upload_id, found = service.whole(ARCHIVE), []
    threads = [threading.Thread(target=lambda: found.append(ask(upload_id=upload_id).status_code)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [202, 409, 409, 409, 409]


def test_the_same_request_again_gets_the_same_job(service, ask):
    upload_id = service.whole(ARCHIVE)
    first, again = (ask({"Idempotency-Key": upload_id}, upload_id=upload_id) for _ in range(2))
    assert (again.status_code, again.json()) == (202, first.json())
    service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
    sweep(service)
    assert ask({"Idempotency-Key": upload_id}, upload_id=upload_id).json() == first.json()


def test_a_refusal_leaves_the_upload_to_be_used(service, ask):
    upload_id = service.whole(ARCHIVE)
    problem(ask(upload_id=upload_id, model="none"), 404, "not_found")
    problem(ask(upload_id=upload_id, version=7), 404, "not_found")
    assert "neither" in problem(ask(), 422, "invalid_payload")["errors"][0]["detail"]
    assert "both" in problem(ask(upload_id=upload_id, dataset="ds_0"), 422, "invalid_payload")["errors"][0]["detail"]
    said = problem(ask(upload_id=upload_id, splits=["test"]), 422, "invalid_payload")["errors"][0]["detail"]
    assert "leave them out" in said
    assert service.request("GET", f"/{upload_id}").json()["state"] == "complete"
    assert ask(upload_id=upload_id).status_code == 202
    problem(ask(upload_id=upload_id), 409, "upload_used")


def test_what_is_no_finished_archive_of_the_project_is_refused(service, ask):
    text, half = service.whole(b"no archive at all"), service.begin(10)
    assert "zip" in problem(ask(upload_id=text), 400, "not_an_archive")["detail"]
    problem(ask(upload_id=service.whole(b"")), 400, "not_an_archive")
    problem(ask(upload_id=half), 409, "upload_incomplete")
    problem(ask(upload_id="up_none"), 404, "not_found")
    late = service.whole(ARCHIVE)
    service.change(late, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))
    problem(ask(upload_id=late), 410, "upload_gone")
    with service.state.database.write() as session:
        project = factories.project(session, f"other-{next(NUMBERS)}")
        new = uploads.NewUpload(filename="a.zip")
        other = uploads.create(session, service.state.inbox, project, new, 10, timedelta(1)).id
    problem(ask(upload_id=other), 404, "not_found")
    assert service.request("GET", f"/{text}").json()["state"] == "complete"
