"""What the client reads line by line from the real application behind a real server."""

from itertools import repeat

import httpx
import pytest

from app.api import streams
from app.api.connections import Connection
from app.api.deps import State
from app.client import ApiError, Client
from app.client.predicting import WINDOW
from app.services import jobs, limits
from app.services.limits import Limits
from app.settings import Settings
from tests import factories
from tests.app.api import callers
from tests.inference import PICTURES, publish
from tests.listening import application

pytestmark = pytest.mark.server

# What Python takes for the end of a line too (`str.splitlines`), and JSON holds as it is.
SEPARATORS = "a\u2028b\u2029c\x85d"


class Impatient(Connection):
    """Gives up soon whoever does not read."""

    read_seconds = 2.0


def published(state: State, settings: Settings, labels: list[str]) -> None:
    with state.database.write() as session:
        of = factories.model(session, "tiny", 0)
        factories.published(session, state.storage, settings.home_path / "made", of, 1, labels=labels)


def test_more_is_answered_than_fits_between_client_and_server(light: Settings) -> None:
    """Lines and images of 20 KB: a client that sent all before it reads would wait for a server that waits for it."""
    assert WINDOW <= streams.WINDOW
    picture = factories.png(size=96)
    with application(light, Impatient) as (url, state), Client(url, timeout_seconds=60) as graft:
        published(state, light, [f"{number} {'x' * 200}" for number in range(100)])
        lines = graft.predict_lines("tiny", repeat(picture, 1000))
        assert [line["index"] for line in lines] == list(range(1000))


def test_an_image_is_named_by_its_place_among_all_of_them(light: Settings) -> None:
    limited = light.model_copy(update={"max_predict_bytes": 10_000})
    bad = {WINDOW + 6: b"text", 2 * WINDOW: bytes(20_000)}
    with application(limited) as (url, state), Client(url) as graft:
        published(state, light, ["cat", "dog"])
        images = (bad.get(number, PICTURES[0]) for number in range(3 * WINDOW))
        found = list(graft.predict_lines("tiny", images))
    assert [line["index"] for line in found] == list(range(3 * WINDOW))
    problems = {line["index"]: line["problem"] for line in found if "problem" in line}
    assert {index: (one["index"], one["code"]) for index, one in problems.items()} == {
        WINDOW + 6: (WINDOW + 6, "image_unreadable"),
        2 * WINDOW: (2 * WINDOW, "body_too_large"),
    }
    assert problems[2 * WINDOW]["detail"].startswith("expected a line of at most 10000 bytes")


def test_no_image_is_no_line(light: Settings) -> None:
    with application(light) as (url, _), Client(url) as graft:
        assert list(graft.predict_lines("tiny", [])) == []
        with pytest.raises(ApiError, match="not_found"):
            list(graft.predict_lines("none", PICTURES))


def test_what_was_begun_goes_on_once_there_is_room_for_it(light: Settings) -> None:
    with application(light.model_copy(update={"require_keys": True})) as (url, state):
        made = callers.key(state, project="busy")
        publish(state, light.home_path / "made", project_id="busy")
        with state.database.write() as session:
            limits.put(session, "busy", Limits(max_requests=1))
        with Client(url, key=made.secret) as graft:
            lines = graft.predict_lines("tiny", [PICTURES[0]] * (2 * WINDOW + 1))
            assert [line["index"] for line in lines] == list(range(2 * WINDOW + 1))


def test_a_line_ends_where_json_lets_it_end(light: Settings) -> None:
    pixels = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [0] * 192}
    with application(light) as (url, state), Client(url) as graft:
        published(state, light, [SEPARATORS, f"{SEPARATORS}2"])
        (line,) = graft.predict_lines("tiny", PICTURES[:1])
        assert line["label"] in (SEPARATORS, f"{SEPARATORS}2")
        graft.set_log("tiny", 1.0)
        asked = {"id": SEPARATORS, "inputs": [pixels]}
        assert httpx.post(f"{url}/v2/models/tiny/infer", json=asked).status_code == 200
        state.observation.logbook.flush()
        (day,) = graft.log("tiny")["days"]
        assert [row["request_id"] for row in graft.logged("tiny", day)] == [SEPARATORS]


def test_an_event_ends_where_its_message_does(light: Settings) -> None:
    with application(light) as (url, state), Client(url) as graft:
        with state.database.write() as session:
            job = factories.job(session, state="succeeded")
            jobs.log(session, job, "log", SEPARATORS)
            job_id = job.id
        assert SEPARATORS in [event.data["message"] for event in graft.events(job_id) if event.id is not None]
