"""Whoever goes away while an answer is computed: what nobody waits for is not, whichever server tells of it."""

import base64
import json
import logging
import time
from contextlib import closing
from typing import ClassVar

import pytest

from app.api.connections import MAX_AHEAD, Connection
from app.api.waiting import LOST
from tests.app.api.test_held import answer, begun
from tests.app.api.test_streams import PICTURES
from tests.conftest import wait_until
from tests.inference import publish_heavy
from tests.listening import application

NUMBER = 200
TEXTS = [base64.b64encode(data).decode() for data in (PICTURES * NUMBER)[:NUMBER]]
DOORS = {
    "/api/v1/models/heavy/predict": {"images": [{"b64": text} for text in TEXTS]},
    "/api/v1/models/heavy/embed": {"images": [{"b64": text} for text in TEXTS]},
    "/v2/models/heavy/infer": {"inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [NUMBER], "data": TEXTS}]},
}


class Silent(Connection):
    """As any other server: the end of a connection is a message for whoever listens."""

    def on_message_begin(self):
        super().on_message_begin()
        del self.scope[LOST]


@pytest.mark.parametrize("connection", [Connection, Silent])
@pytest.mark.parametrize("path", DOORS)
def test_what_nobody_waits_for_is_not_computed(light, tmp_path, caplog, path, connection):
    body = json.dumps(DOORS[path]).encode()
    with application(light, connection) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=1000)
        with closing(begun(address, path, len(body), body, "application/json")):
            wait_until(lambda: state.engine.num_images == NUMBER, "images in the engine")
        wait_until(lambda: state.engine.is_idle and state.held.num_bytes == 0, "images that nobody waits for")
        (version_id,) = state.statistics.version_ids()
        counted = state.statistics.total().of(version_id)
        assert (counted.fail.count, counted.success.count) == (1, 0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_lines_that_nobody_reads_are_not_computed(light, tmp_path):
    path, body = next((path, json.dumps(body).encode()) for path, body in DOORS.items())
    with application(light) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=1000)
        accepting = "application/json\r\nAccept: application/x-ndjson"
        with closing(begun(address, path, len(body), body, accepting)):
            wait_until(lambda: state.engine.num_images >= 40, "images in the engine")
        wait_until(lambda: state.engine.is_idle and state.held.num_bytes == 0, "images that nobody waits for")
        (version_id,) = state.statistics.version_ids()
        counted = state.statistics.total().of(version_id)
        # Most of them have not even begun.
        assert counted.success.count + counted.fail.count < NUMBER / 2


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_body_that_does_not_come_in_time_is_late(light, tmp_path, accept):
    with application(light) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=1)
        path = "/api/v1/models/heavy/predict?timeout=0.3"
        with closing(begun(address, path, 1000, b"{", f"application/json\r\nAccept: {accept}")) as connection:
            status, _, document = answer(connection)
    assert (status, document["code"]) == (504, "deadline_exceeded")


class Kept(Connection):
    """Can be looked at from outside."""

    made: ClassVar[list[Connection]] = []

    def on_message_begin(self):
        super().on_message_begin()
        self.made.append(self)


def test_what_comes_behind_a_request_waits_in_the_socket(light, tmp_path):
    """The end of a connection is listened for, and yet nobody fills the memory with requests that have no turn."""
    path, body = next((path, json.dumps(body).encode()) for path, body in DOORS.items())
    behind = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with application(light, Kept) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=1000)
        with closing(begun(address, path, len(body), body, "application/json")) as connection:
            wait_until(lambda: state.engine.num_images == NUMBER, "images in the engine")
            of_server = Kept.made[-1]
            assert not of_server.flow.read_paused
            connection.sendall(behind * 10)
            wait_until(lambda: len(of_server.pipeline) == 10, "requests behind the first")
            assert of_server.flow.read_paused
            assert not state.engine.is_idle
            connection.sendall(behind * 2 * MAX_AHEAD)
            time.sleep(0.3)
            assert len(of_server.pipeline) == 10
