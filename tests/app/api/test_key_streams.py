"""Answers that last longer than the key that asked for them."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import TooMany
from app.services import keys
from tests import factories
from tests.app.api.callers import bearer, key, keyed
from tests.checks import problem
from tests.conftest import wait_until
from tests.inference import NAME, PICTURES, publish


@pytest.fixture
def client(light):
    with keyed(light) as found:
        yield found


@pytest.fixture
def state(client):
    return client.app.state.graft


def end(state, made):
    with state.database.write() as session:
        keys.revoke(session, "default", made.row.id)
    state.keyring.forget(made.row.id)


def test_events_of_a_job_end_with_the_key(client, state):
    with state.database.write() as session:
        job = factories.job(session).id
    made = key(state, "read")
    with ThreadPoolExecutor(1) as thread:
        asked = {**bearer(made), "Accept": "text/event-stream"}
        answer = thread.submit(client.get, f"/api/v1/jobs/{job}/events", headers=asked)
        wait_until(lambda: state.keyring._known, "a caller")
        assert not answer.done()
        end(state, made)
        # The job waits for ever, and so would its stream.
        found = answer.result(60)
    assert (found.status_code, found.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")


@pytest.fixture
def follow(client, state):
    """Opens a stream of events of a job that waits; what is open at the end goes with its key."""
    with state.database.write() as session:
        job = factories.job(session).id
    with ThreadPoolExecutor(10) as threads:

        def start(made):
            asked = {**bearer(made), "Accept": "text/event-stream"}
            return threads.submit(client.get, f"/api/v1/jobs/{job}/events", headers=asked)

        yield start


def test_a_project_has_so_many_streams_open_and_no_more(client, state, follow, monkeypatch):
    followers = state.followers
    monkeypatch.setattr(followers, "_most", 2)
    first, last = key(state, "read"), key(state, "read")
    open_streams = [follow(first), follow(last)]
    wait_until(lambda: followers._of["default"] == 2, "two open streams")
    refused = problem(follow(first).result(60), 429, "too_many_streams")
    assert "GRAFT_MAX_EVENT_STREAMS" in refused["detail"]
    # Pages cost nothing that lasts, and others have streams of their own.
    assert client.get("/api/v1/jobs", headers=bearer(first)).status_code == 200
    with pytest.raises(TooMany), followers.one("default"):
        pass
    with followers.one("other"):
        pass
    end(state, first)
    assert open_streams[0].result(60).status_code == 200
    wait_until(lambda: followers._of["default"] == 1, "an end of the stream")
    again = follow(last)
    wait_until(lambda: followers._of["default"] == 2, "another open stream")
    end(state, last)
    assert [one.result(60).status_code for one in (*open_streams, again)] == [200, 200, 200]
    assert followers._of.total() == 0


def test_streams_look_in_threads_of_their_own(client, state, follow):
    made = key(state, "read")
    streams = [follow(made) for _ in range(6)]
    wait_until(lambda: state.followers._of["default"] == 6, "open streams")
    with state.database._watching:
        # None of them gets on; everybody else does.
        wait_until(lambda: state.followers.looks.borrowed_tokens == state.followers.looks.total_tokens, "looks")
        for _ in range(5):
            assert client.get("/api/v1/datasets", headers=bearer(made)).status_code == 200
    end(state, made)
    assert {one.result(60).status_code for one in streams} == {200}


def test_lines_of_predictions_end_with_the_key(client, state, tmp_path):
    publish(state, tmp_path / "made")
    made = key(state, "predict")
    line = json.dumps({"b64": base64.b64encode(PICTURES[0]).decode()}).encode() + b"\n"
    headers = {"host": "127.0.0.1", "content-type": "application/x-ndjson", **bearer(made)}
    scope = {
        "type": "http", "method": "POST", "path": f"/api/v1/models/{NAME}/predict", "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip

    async def ask():
        steps, sent = iter(("first", "second")), []

        async def receive():
            step = next(steps, None)
            if step is None:
                # The client has more to send, and waits.
                await asyncio.Event().wait()
            if step == "second":
                end(state, made)
            return {"type": "http.request", "body": line, "more_body": True}

        async def send(message):
            sent.append(message)

        await client.app(scope, receive, send)
        return sent

    start, *parts = client.portal.call(ask)
    first, second = (json.loads(row) for row in b"".join(part["body"] for part in parts).splitlines())
    assert (start["status"], first["index"], "label" in first) == (200, 0, True)
    assert second["problem"]["code"] == "key_revoked"
