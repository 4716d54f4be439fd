"""Events of jobs, in pages and as a stream, on both databases."""

import json
import threading

import pytest

from app.db.models import Job
from app.services import attempts, jobs
from app.states import JobState
from tests import factories
from tests.app.api.made_jobs import URL, make_job
from tests.checks import problem


def test_events_in_pages(client, database):
    with database.write() as session:
        job = factories.job(session)
        for number in range(4):
            jobs.log(session, job, "metric", f"step {number}", loss=number / 2)
    url = f"{URL}/{job.id}/events"
    first = client.get(url, params={"limit": 2}).json()
    assert ([row["id"] for row in first["data"]], first["has_more"]) == ([1, 2], True)
    assert (first["data"][0]["type"], first["data"][0]["message"]) == ("state", "queued")
    second = client.get(url, params={"after": 2}).json()
    assert ([row["id"] for row in second["data"]], second["has_more"]) == ([3, 4, 5], False)
    assert second["data"][-1].items() >= {
        "level": "info", "type": "metric", "message": "step 3", "data": {"loss": 1.5}
    }.items()  # fmt: skip
    problem(client.get(url, params={"after": -1}), 422, "invalid_payload")


def parse_stream(text):
    """(id, event, data) of each message of a stream."""
    messages = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            messages.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return messages


def stream(client, job_id, **headers):
    answer = client.get(f"{URL}/{job_id}/events", headers={"Accept": "text/event-stream", **headers})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return parse_stream(answer.text)


def test_stream_replays_and_resumes(client, database):
    job_id = make_job(database, state="succeeded")
    messages = stream(client, job_id)
    logged = [(int(number), data["id"]) for number, _, data in messages if number]
    assert logged == [(1, 1), (2, 2), (3, 3)]
    assert [kind for number, kind, _ in messages if number] == ["state"] * 3
    assert messages[-1][:2] == (None, "progress")
    told = messages[-1][2]
    assert told.keys() == messages[0][2].keys()
    assert (told["id"], told["level"], told["type"]) == (None, "info", "progress")
    assert told["message"] == told["data"]["stage"]
    assert told["data"].keys() == {"fraction", "stage", "eta_seconds"}
    assert [number for number, *_ in stream(client, job_id, **{"Last-Event-ID": "2"}) if number] == ["3"]
    # Browsers would ask again and again for a stream that has ended.
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "3"}
    assert client.get(f"{URL}/{job_id}/events", headers=headers).status_code == 204


def test_stream_follows_a_job_to_its_end(client, database):
    job_id = make_job(database)
    received = []
    reader = threading.Thread(target=lambda: received.extend(stream(client, job_id)))
    reader.start()
    with database.write() as session:
        attempts.claim(session, ["cpu"], "me", 60)
    for number in range(3):
        entry = {"type": "log", "message": f"line {number}"}
        progress = {"fraction": number / 3, "stage": "features", "eta_seconds": None}
        with database.write() as session:
            attempts.record(session, job_id, "me", [entry], progress)
    with database.write() as session:
        jobs.move(session, session.get_one(Job, job_id), JobState.SUCCEEDED)
    reader.join(30)
    assert not reader.is_alive()
    logged = [(int(number), data["message"]) for number, _, data in received if number]
    assert logged == [
        (1, "queued"), (2, "attempt 1 started"), (3, "line 0"), (4, "line 1"), (5, "line 2"), (6, "succeeded")
    ]  # fmt: skip
    assert [data["data"]["fraction"] for number, _, data in received if number is None][-1] == 2 / 3


@pytest.mark.parametrize("given", ["\u0662", "\u00b2", "2147483648", "9" * 5000, "-1", "x", ""])
def test_stream_starts_anew_after_a_number_that_is_none_of_ours(client, database, given):
    job_id = make_job(database, state="succeeded")
    found = stream(client, job_id, **{"Last-Event-ID": given.encode()})
    assert [number for number, *_ in found if number] == ["1", "2", "3"]
