"""Streams of lines over a real connection: who leaves in the middle of one, and what comes in pieces."""

import json
import logging
from contextlib import ExitStack, closing

import httpx
import pytest

from tests import factories
from tests.app.api.test_held import begun
from tests.app.api.test_streams import NDJSON, PICTURES, URL, lines, sent
from tests.conftest import wait_until
from tests.inference import publish, publish_heavy
from tests.listening import application

LINE = sent(PICTURES[:1]) + b"\n"


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("more", [0, 1000])
def test_whoever_leaves_a_stream_is_no_error(light, tmp_path, caplog, more):
    """Whether all images have come, or more were announced; those that nobody waits for are failures in the figures."""
    with application(light) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=400)
        rest = LINE * 60
        path = URL.replace("tiny", "heavy")
        with closing(begun(address, path, len(LINE + rest) + more, LINE, NDJSON)) as connection:
            with connection.makefile("rb") as file:
                assert next(row for row in file if row.startswith(b'{"index": 0'))
            connection.sendall(rest)
            wait_until(lambda: state.engine.num_images >= 40, "images in the engine")
        wait_until(lambda: state.engine.is_idle and state.held.num_bytes == 0, "images that nobody waits for")
        (version_id,) = state.statistics.version_ids()
        wait_until(lambda: state.statistics.total().of(version_id).fail.count > 0, "failures")
    assert errors(caplog) == []


@pytest.mark.parametrize("size", [2**10, 2**20])
def test_a_line_that_is_too_large_is_one_bad_image_of_its_stream(light, tmp_path, size):
    """In pieces or at once; no more of it is held than a line may have."""
    limit = 100_000
    limits = {"max_predict_bytes": limit, "max_held_bytes": 10 * limit}
    long = b"x" * (limit + 1)
    body = b"\n".join((sent(PICTURES[:1]), long, sent(PICTURES[1:2]), b"", b" " * 20 * limit, b"{", long))
    with application(light.model_copy(update=limits)) as (address, state):
        publish(state, tmp_path / "made", "tiny")
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        found = lines(httpx.post(address + URL, content=pieces, headers={"Content-Type": NDJSON}, timeout=60))
        assert state.held.num_bytes == 0
    assert ["label" in item for item in found] == [True, False, True, False, False, False]
    problems = [item["problem"] for item in (found[1], *found[3:])]
    assert [(item["detail"].partition(":")[0], item["code"]) for item in problems] == [
        ("line 2", "body_too_large"), ("line 5", "body_too_large"),
        ("line 6", "invalid_payload"), ("line 7", "body_too_large"),
    ]  # fmt: skip
    assert problems[2]["errors"][0]["pointer"] == "/body/4"


def test_lines_end_with_the_process(light, tmp_path, caplog):
    """What came is answered, and what is missing is said; the server cancels nothing, which would be logged."""
    with ExitStack() as opened:
        with application(light) as (address, state):
            publish(state, tmp_path / "made", "tiny")
            connection = opened.enter_context(closing(begun(address, URL, 2 * len(LINE), LINE, NDJSON)))
            file = opened.enter_context(connection.makefile("rb"))
            assert next(row for row in file if row.startswith(b'{"index": 0'))
        last = [json.loads(row) for row in file if row.startswith(b"{")]
    assert [(item["index"], item["problem"]["code"]) for item in last] == [(1, "unavailable")]
    assert errors(caplog) == []


def test_events_of_a_job_end_with_the_process(light, caplog):
    with ExitStack() as opened:
        with application(light) as (address, state):
            with state.database.write() as session:
                path = f"/api/v1/jobs/{factories.job(session).id}/events"
            asked = httpx.stream("GET", address + path, headers={"Accept": "text/event-stream"}, timeout=60)
            events = opened.enter_context(asked).iter_lines()
            assert next(events) == "retry: 1000"
        # To its last byte: nothing is broken off.
        assert list(events)
    assert errors(caplog) == []


@pytest.mark.parametrize("path", ["/api/v1/datasets", URL, "/v2/models/tiny/infer"])
def test_a_body_that_comes_when_the_process_ends_is_to_be_sent_again(light, caplog, path):
    kind = "application/octet-stream" if "/v2" in path else "multipart/form-data; boundary=x"
    with ExitStack() as opened:
        with application(light) as (address, state):
            connection = opened.enter_context(closing(begun(address, path, 1000, b"--x\r\n", kind)))
            wait_until(lambda: httpx.get(f"{address}/livez").status_code == 200, "a service that has seen it")
        file = opened.enter_context(connection.makefile("rb"))
        status, *_ = file.readline().split(b" ", 1)[1].split()
        headers = dict(iter(lambda: file.readline().decode().lower().strip().partition(": ")[::2], ("", "")))
        body = json.loads(file.read())
    assert (status, headers["connection"], headers["retry-after"]) == (b"503", "close", "5")
    assert "asked to stop" in (body["error"] if "/v2" in path else body["detail"])
    assert state.held.num_bytes == 0
    assert not [message for message in errors(caplog) if "ASGI" in message]
