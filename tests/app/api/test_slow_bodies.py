"""A client that falls silent in the middle of a body is not waited for without end, and leaves nothing."""

import asyncio
import gc
import json
import shutil
import socket
import weakref
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.slow_bodies import SlowBodies
from app.db.waste import Waste
from app.settings import Settings
from tests import listening
from tests.factories import files_below

IDLE_SECONDS = 0.5
BOUNDARY = "b0undary"
FORM = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'.encode() + b"PK" * 2**20
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(scope="module")
def service(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(sqlite_template, home / "graft.db")
    with listening.application(Settings(home=home, body_idle_seconds=IDLE_SECONDS)) as (url, state):
        yield url, state


def ask(url, method, path, kind, begun, *headers):
    """The answer to a request of whose body only the beginning comes; read to the end of its connection."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Type: {kind}",
                 f"Content-Length: {len(begun) + 100}", *headers]  # fmt: skip
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + begun)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().lower(), json.loads(body)


@pytest.mark.parametrize(
    ("path", "kind", "begun"),
    [
        ("/api/v1/datasets", MULTIPART, FORM),
        ("/api/v1/datasets", "application/json", b'{"name": '),
        ("/api/v1/backbones", MULTIPART, FORM),
        ("/api/v1/models/m/versions", MULTIPART, FORM),
        # Read by the framework, which makes another error of whatever goes wrong with it.
        ("/api/v1/jobs", "application/json", b'{"kind": '),
    ],
)
def test_a_body_that_stalls_is_given_up(service, path, kind, begun):
    url, state = service
    head, body = ask(url, "POST", path, kind, begun)
    assert head.startswith("http/1.1 408")
    assert "connection: close" in head
    assert "content-type: application/problem+json" in head
    assert (body["code"], body["instance"]) == ("body_stalled", path)
    assert "GRAFT_BODY_IDLE_SECONDS" in body["detail"]
    assert files_below(state.settings.scratch, state.settings.home_path / "storage") == []
    with state.database.read() as session:
        assert session.query(Waste).all() == []


def test_a_resumable_upload_keeps_what_came(service):
    url, state = service
    tus = "Tus-Resumable: 1.0.0"
    head, body = ask(url, "POST", "/api/v1/uploads", "application/offset+octet-stream", b"x", tus, "Upload-Length: 200")
    # Nobody was told of it: nothing is kept.
    assert body["code"] == "body_stalled"
    assert files_below(state.settings.home_path / "storage") == []
    with httpx.Client(base_url=url, trust_env=False) as http:
        begun = http.post("/api/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "200"})
        place = begun.headers["Location"]
        head, body = ask(url, "PATCH", place, "application/offset+octet-stream", b"abc", tus, "Upload-Offset: 0")
        assert head.startswith("http/1.1 408")
        assert http.head(place, headers={"Tus-Resumable": "1.0.0"}).headers["Upload-Offset"] == "3"
        assert http.delete(place, headers={"Tus-Resumable": "1.0.0"}).status_code == 204


def test_time_in_which_nobody_waits_does_not_count():
    """An application that is busy for longer than that finds the body that has come meanwhile."""

    async def app(_scope, receive, _send):
        for _ in range(2):
            await asyncio.sleep(0.2)
            await receive()
        # Behind the body: the end of the connection, which may be far.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.2)

    bodies = [{"type": "http.request", "more_body": True}, {"type": "http.request", "more_body": False}]

    async def receive():
        return bodies.pop(0) if bodies else await asyncio.sleep(60)

    asyncio.run(SlowBodies(app, 0.1)({"type": "http"}, receive, None))


def test_waits_that_were_given_up_add_up():
    async def app(_scope, receive, _send):
        for _ in range(1000):
            with suppress(TimeoutError):
                await asyncio.wait_for(receive(), 0.05)

    async def silence():
        await asyncio.sleep(60)

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(SlowBodies(app, 0.2)({"type": "http", "path": "/x"}, silence, send))
    assert sent[0]["status"] == 408


class Mark:
    """Something that belongs to a request."""


def answered():
    """Of a request that was answered, what belonged to it."""
    mark = Mark()
    scope = {"type": "http", "path": "/", "mark": mark}

    # It knows of the scope, as in the service.
    async def send(message):
        scope["sent"] = message

    async def receive():
        return {"type": "http.request"}

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start"})

    asyncio.run(SlowBodies(app, IDLE_SECONDS)(scope, receive, send))
    assert scope["sent"]
    return weakref.ref(mark)


def test_a_request_leaves_nothing_for_the_garbage_collector():
    gc.disable()
    try:
        assert answered()() is None
    finally:
        gc.enable()
