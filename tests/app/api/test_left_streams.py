"""Clients that leave in the middle of a stream of lines."""

import logging

import pytest

from tests.app.api.test_held import begun
from tests.app.api.test_streams import NDJSON, PICTURES, URL, sent
from tests.conftest import wait_until
from tests.inference import publish_heavy
from tests.listening import application

LINE = sent(PICTURES[:1]) + b"\n"


@pytest.mark.parametrize("more", [0, 1000])
def test_whoever_leaves_a_stream_is_no_error(light, tmp_path, caplog, more):
    """Whether all images have come, or more were announced."""
    with application(light) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=200)
        body = LINE * 30
        connection = begun(address, URL.replace("tiny", "heavy"), len(body) + more, body, NDJSON)
        with connection.makefile("rb") as file:
            assert next(row for row in file if row.startswith(b'{"index": 0'))
        assert not state.engine.is_idle
        connection.close()
        wait_until(lambda: state.engine.is_idle and state.held.num_bytes == 0, "images that nobody waits for")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
