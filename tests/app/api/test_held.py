"""Bodies that stall, and more of them than memory is to hold; refusals in the metrics."""

import asyncio
import gzip
import json
import socket
import threading
from contextlib import closing
from functools import partial

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api import images
from app.api.held import CHUNK_BYTES, Held, Hold
from app.errors import Overloaded
from app.services.served import metrics as served_metrics
from tests.app.api.callers import bearer, key
from tests.app.api.oip.test_grpc import Caller, encoded, infer
from tests.app.api.test_streams import PICTURES, sent
from tests.conftest import free_port, wait_until
from tests.factories import png
from tests.inference import publish, publish_heavy
from tests.listening import application

PNG = {"Content-Type": "image/png"}
URL, LIMIT = "/api/v1/models/tiny/predict", 4000
DOORS = (URL, "/api/v1/models/tiny/embed", "/api/v1/models/tiny/classes", "/v2/models/tiny/infer")


@pytest.fixture
def served(light, tmp_path):
    """Address and state of a service in which two of the largest bodies have room."""
    limits = {"max_predict_bytes": LIMIT, "max_held_bytes": 2 * LIMIT + 100, "body_idle_seconds": 2.0}
    with application(light.model_copy(update=limits)) as (address, state):
        publish(state, tmp_path / "made", "tiny")
        yield address, state


def begun(address, path, length, body=b"", kind="image/png"):
    """A connection on which the beginning of a request was sent."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def answer(connection):
    with closing(connection), connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = dict(iter(lambda: file.readline().decode().lower().strip().partition(": ")[::2], ("", "")))
        return status, headers, json.loads(file.read(int(headers["content-length"])))


def refused(address, headers=None):
    return counts(httpx.get(f"{address}/metrics", headers=headers).text)


def counts(text):
    families = text_string_to_metric_families(text)
    return {
        (sample.labels["model"], sample.labels["reason"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "graft_predict_refused_total"
    }


def test_a_body_that_stalls_is_given_up_at_every_door(served):
    address, state = served
    kinds = ["image/png", "image/png", "application/json", "application/octet-stream"]
    waiting = [begun(address, path, 1000, b"x" * 10, kind) for path, kind in zip(DOORS, kinds, strict=True)]
    for path, connection in zip(DOORS, waiting, strict=True):
        status, headers, body = answer(connection)
        assert (status, headers["connection"]) == (408, "close")
        assert "GRAFT_BODY_IDLE_SECONDS" in (body["error"] if path.startswith("/v2") else body["detail"])
    wait_until(lambda: state.held.num_bytes == 0, "bodies that are held no more")
    assert refused(address) == {("tiny", "body_stalled"): 4}


def test_all_bodies_together_have_a_bound(served):
    address, state = served
    waiting = [begun(address, URL, LIMIT, b"x" * (LIMIT - 1)) for _ in range(2)]
    wait_until(lambda: state.held.num_bytes == 2 * (LIMIT - 1), "two bodies")
    # Before its body comes.
    status, headers, body = answer(begun(address, URL, LIMIT))
    assert (status, body["code"], headers["retry-after"]) == (503, "overloaded", "1")
    assert "GRAFT_MAX_HELD_BYTES" in body["detail"]
    assert refused(address) == {("tiny", "overloaded"): 1}
    for connection in waiting:
        connection.close()
    wait_until(lambda: state.held.num_bytes == 0, "bodies that are held no more")
    assert httpx.post(address + URL, content=PICTURES[0], headers={"Content-Type": "image/png"}).status_code == 200


def test_a_body_in_gzip_counts_as_what_it_is_unpacked(served):
    address, state = served
    packed = gzip.compress(b" " * (LIMIT - 100))
    hold = Hold(state.held, "default")
    hold.take(LIMIT + 1000)
    ask = partial(httpx.post, f"{address}/v2/models/tiny/infer", content=packed, headers={"Content-Encoding": "gzip"})
    answered = ask()
    assert (answered.status_code, "GRAFT_MAX_HELD_BYTES" in answered.json()["error"]) == (503, True)
    # A request lets go a moment after its answer.
    wait_until(lambda: state.held.num_bytes == LIMIT + 1000, "the end of the request")
    hold.close()
    assert ask().status_code == 400
    wait_until(lambda: state.held.num_bytes == 0, "the end of the request")


def test_an_image_of_a_stream_is_held_until_it_is_answered(light, tmp_path):
    with application(light) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=400)
        line = sent(PICTURES[:1]) + b"\n"
        path = URL.replace("tiny", "heavy")
        connection = begun(address, path, 10**6, line * 60, "application/x-ndjson")
        wait_until(lambda: state.engine.num_images >= 40, "images in the engine")
        held, number = state.held.num_bytes, state.engine.num_images
        assert held >= number * len(line) > 20 * len(line)
        # All are answered, and the stream goes on.
        wait_until(lambda: state.engine.is_idle and state.held.num_bytes == 0, "images that are answered")
        connection.sendall(line * 60 + b"{}\n")
        wait_until(lambda: state.engine.num_images >= 40, "images in the engine")
        connection.close()
        wait_until(lambda: state.held.num_bytes == 0, "images that nobody waits for")


def test_a_stream_waits_for_its_own_images_before_it_is_refused(light, tmp_path):
    limits = {"max_predict_bytes": CHUNK_BYTES, "max_held_bytes": 3 * CHUNK_BYTES}
    with application(light.model_copy(update=limits)) as (address, state):
        publish_heavy(state, tmp_path / "made", "heavy", num_layers=20)
        number, line = 200, sent([png(size=128)])
        assert number * len(line) > 10 * state.settings.max_held_bytes
        headers = {"Content-Type": "application/x-ndjson"}
        path = address + URL.replace("tiny", "heavy")
        text = httpx.post(path, content=b"\n".join([line] * number), headers=headers, timeout=120).text
        assert ["problem" in json.loads(row) for row in text.splitlines()] == [False] * number
        assert state.held.num_bytes == 0


def test_a_part_of_a_hold_ends_by_itself_or_with_the_whole():
    held = Held(400, 100)
    whole = Hold(held, "mine")
    whole.take(100)
    first, second = whole.part(30), whole.part(40)
    assert held.num_bytes == 100
    second.take(50)
    first.close()
    assert held.num_bytes == 120
    whole.close()
    second.close()
    assert held.num_bytes == 0


def test_a_project_leaves_a_quarter_to_others():
    held = Held(400, 100, has_projects=True)
    mine = [Hold(held, "mine") for _ in range(4)]
    for hold in mine[:3]:
        hold.take(100)
    with pytest.raises(Overloaded, match="300 bytes of the same project, and that the 100 that are free of 400"):
        mine[3].take(1)
    other = Hold(held, "other")
    other.take(100)
    assert held.num_bytes == 400
    with pytest.raises(Overloaded, match="400 bytes of others"):
        other.take(1)
    mine[0].close()
    # As much is free for either, and the one that holds less has some of it.
    with pytest.raises(Overloaded):
        mine[0].take(26)
    other.take(50)
    with pytest.raises(Overloaded):
        other.take(1)
    for hold in (*mine, other):
        hold.close()
    assert held.num_bytes == 0


def test_each_project_has_room_for_a_largest_body_while_there_is_any():
    held = Held(150, 100, has_projects=True)
    Hold(held, "first").take(50)
    Hold(held, "second").take(100)
    assert held.num_bytes == 150


def test_without_projects_nothing_is_kept_back():
    held = Held(400, 100)
    for _ in range(4):
        Hold(held, "").take(100)
    assert held.num_bytes == 400


def test_what_is_full_is_told_to_its_owners_alone(light, tmp_path):
    settings = light.model_copy(update={"require_keys": True, "grpc_port": free_port()})
    with application(settings) as (address, state):
        team, other = (bearer(key(state, project=project)) for project in ("team", "other"))
        publish_heavy(state, tmp_path, "heavy", project="team", num_layers=1)
        doors = ("/api/v1/models/heavy/predict", "/api/v1/models/heavy/embed", "/v2/models/heavy/infer")

        def statuses(headers, doors=doors):
            kinds = {**PNG, "Inference-Header-Content-Length": "0", **headers}
            return [
                httpx.post(address + path, content=PICTURES[0], headers=kinds, timeout=60).status_code for path in doors
            ]

        def over_grpc(headers):
            metadata = [(name.lower(), value) for name, value in headers.items()]
            with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
                with pytest.raises(grpc.RpcError) as caught:
                    Caller(channel)("ModelInfer", infer([encoded()], model_name="heavy"), metadata=metadata)
                return caught.value.code().name

        # Once: what loads the graphs does not count towards the rate.
        assert statuses(team, doors[:1]) == [200]
        (backbone,) = state.lookup.backbones("team", "heavy")
        room = state.engine.room
        room.enter(backbone, 1000, "team")
        room.ran(backbone, 1, 1000.0, 1000.0, is_last=True)
        # A key that was never seen, one that was, and none.
        assert statuses(other) == statuses(other) == [404] * 3
        assert statuses({}) == [401] * 3
        assert statuses(team) == [503] * 3
        assert [over_grpc(headers) for headers in (other, team)] == ["NOT_FOUND", "UNAVAILABLE"]
        assert refused(address, other) == {}
        room.leave(backbone, 1000, "team")


def test_a_model_without_room_is_refused_before_its_body_comes_and_no_other_one_is(served, tmp_path):
    address, state = served
    publish_heavy(state, tmp_path, "heavy", num_layers=1)
    for name in ("tiny", "heavy"):
        answered = httpx.post(f"{address}/api/v1/models/{name}/predict", content=PICTURES[0], headers=PNG)
        assert answered.status_code == 200
    (backbone,) = state.lookup.backbones("default", "heavy")
    room, number = state.engine.room, 1000
    room.enter(backbone, number, "default")
    room.ran(backbone, 1, 1000.0, 1000.0, is_last=True)
    assert room.per_second(backbone) == pytest.approx(0.001)
    for path in ("/api/v1/models/heavy/predict", "/v2/models/heavy/infer"):
        status, headers, body = answer(begun(address, path, 1000))
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert f"found {number} images before it" in (body["error"] if path.startswith("/v2") else body["detail"])
    assert httpx.post(address + URL, content=PICTURES[0], headers=PNG).status_code == 200
    assert refused(address) == {("heavy", "overloaded"): 2}
    room.leave(backbone, number, "default")


def test_a_stream_waits_between_lines_and_not_in_one(served):
    address, state = served
    line = sent(PICTURES[:1]) + b"\n"
    connection = begun(address, URL, 10**6, line, "application/x-ndjson")
    found = []
    with closing(connection), connection.makefile("rb") as file:

        def read():
            found.extend(json.loads(row) for row in file if row.startswith(b"{"))

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: len(found) == 1, "the first answer")
        # Longer than a line may take.
        reader.join(1.5 * state.settings.body_idle_seconds)
        connection.sendall(line + line[:10])
        reader.join(60)
    assert [row["index"] for row in found] == [0, 1, 2]
    assert found[2]["problem"]["code"] == "body_stalled"


def test_names_that_there_are_not_are_counted_together(served):
    address, state = served
    for number in range(3):
        state.statistics.refused("default", f"unknown-{number}", "overloaded")
    # Of a key that was never seen nobody knows whose model it meant.
    state.statistics.refused("", "tiny", "deadline_exceeded")
    assert refused(address) == {("", "overloaded"): 3, ("", "deadline_exceeded"): 1}


def test_a_refusal_is_counted_for_the_project_of_its_key(light, tmp_path):
    limits = {"max_predict_bytes": LIMIT, "max_held_bytes": LIMIT, "require_keys": True}
    with application(light.model_copy(update=limits)) as (address, state):
        team, other = bearer(key(state, project="team")), bearer(key(state, project="other"))
        for project in ("default", "team", "other"):
            publish(state, tmp_path / project, "tiny", project_id=project)
        ask = partial(httpx.post, address + URL, content=PICTURES[0])
        kind = {"Content-Type": "image/png"}
        assert ask(headers=kind | team).status_code == 200
        hold = Hold(state.held, "team")
        hold.take(LIMIT)
        # The first one is refused before anybody has looked at its key.
        assert [ask(headers=kind | one).status_code for one in (other, team, {})] == [503] * 3
        hold.close()
        assert refused(address, team) == {("tiny", "overloaded"): 1}
        assert refused(address, other) == {}
        with state.database.read() as session:
            of_all = served_metrics(session, state.statistics.total(), state.observation)
        assert counts(of_all) == {("", "overloaded"): 2, ("team/tiny", "overloaded"): 1}


def test_a_deadline_holds_while_the_body_is_read(served):
    address, _ = served
    status, _, body = answer(begun(address, f"{URL}?timeout=0.1", 1000, b"x"))
    assert (status, body["code"]) == (504, "deadline_exceeded")
    assert refused(address) == {("tiny", "deadline_exceeded"): 1}


def test_large_texts_are_read_beside_the_event_loop():
    async def where(size):
        return await images.aside(size, threading.get_ident)

    here = threading.get_ident()
    assert asyncio.run(where(images.LARGE_BYTES - 1)) == here
    assert asyncio.run(where(images.LARGE_BYTES)) != here


@pytest.mark.parametrize("limits", [{"max_queue_seconds": 0.1}, {"max_queued_images": 16}])
def test_a_project_that_asks_too_much_refuses_itself_alone(light, tmp_path, limits):
    """Both have a model on the same backbone, and the other one is answered while the first is refused."""
    with application(light.model_copy(update={"require_keys": True, **limits})) as (address, state):
        flooding, quiet = (bearer(key(state, project=project)) for project in ("flooding", "quiet"))
        for project in ("flooding", "quiet"):
            publish_heavy(state, tmp_path / project, "heavy", project=project, num_layers=50)
        path, stop, statuses = f"{address}/api/v1/models/heavy/predict", threading.Event(), []

        def flood():
            with httpx.Client(headers=flooding, timeout=60) as client:
                while not stop.is_set():
                    sent = [("file", (str(place), PICTURES[0])) for place in range(8)]
                    statuses.append(client.post(path, files=sent).status_code)
                    stop.wait(0.02 if statuses[-1] == 503 else 0)

        # Once: what loads the graphs does not count towards the rate.
        for headers in (flooding, quiet):
            assert httpx.post(path, content=PICTURES[0], headers={**headers, **PNG}, timeout=60).status_code == 200
        threads = [threading.Thread(target=flood) for _ in range(12)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: statuses.count(503) >= 3, "refusals")
            before = statuses.count(503)
            for _ in range(10):
                answered = httpx.post(path, content=PICTURES[0], headers={**quiet, **PNG}, timeout=60)
                assert answered.status_code == 200, answered.text
            assert statuses.count(503) > before
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(statuses) == {200, 503}
