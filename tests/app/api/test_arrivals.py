"""Files that come in forms, in a project that may store so much: counted while they come, and nothing stays."""

import shutil
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError

from app.api import arrivals
from app.db.models import Dataset, IdempotencyKey
from app.db.waste import Waste
from app.services import limits, stored_bytes
from app.services.limits import Limits
from app.settings import Settings
from tests import factories, listening
from tests.checks import problem
from tests.conftest import wait_until
from tests.factories import files_below

MIB = 2**20
ARCHIVE = factories.pack(factories.pictures(1))
BOUNDARY = "part"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="name"\r\n\r\ncolours\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
).encode()
FORMS = {
    "datasets": ({"name": "colours"}, ARCHIVE),
    "backbones": ({"name": "mine", "architecture": "timm/tf_efficientnet_lite0"}, b"weights"),
}
ROUTES = ["datasets", "backbones", "models/tiny/versions"]


@pytest.fixture
def service(sqlite_template, tmp_path):
    shutil.copyfile(sqlite_template, tmp_path / "graft.db")
    with listening.application(Settings(home=tmp_path)) as (url, state):
        yield url, state


def limit(state, num_bytes):
    with state.database.write() as session:
        limits.put(session, "default", Limits(max_bytes=num_bytes))


def counted(state):
    with state.database.read() as session:
        return stored_bytes.total(session, "default")


def left(state):
    """Files, and places that are reserved."""
    with state.database.read() as session:
        reserved = list(session.scalars(select(Waste.prefix)))
    home = state.settings.home_path
    return files_below(home / "storage", home / "scratch"), reserved


def begin(url, route, *headers, body=b""):
    """A request of which only this has come."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    lines = [
        f"POST /api/v1/{route} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        *headers,
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def refusal(connection):
    """A problem, whose head and body need not come at once."""
    found = b""
    while not found.endswith(b"}") and (piece := connection.recv(2**16)):
        found += piece
    return found


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize("length", [2 * MIB, 2**64 - 1])
@pytest.mark.parametrize("route", ROUTES)
def test_what_there_is_no_room_for_is_refused_before_it_comes(service, route, length):
    url, state = service
    limit(state, MIB)
    with begin(url, route, f"Content-Length: {length}") as connection:
        answer = refusal(connection)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"too_many_bytes" in answer
    assert left(state) == ([], [])


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_under_way_counts_until_it_ends(service, route):
    url, state = service
    limit(state, 3 * MIB)
    with begin(url, route, f"Content-Length: {2 * MIB}", body=HEAD):
        wait_until(lambda: counted(state) == 2 * MIB - arrivals.FORM_BYTES, "a request whose bytes count")
        with begin(url, "datasets", f"Content-Length: {2 * MIB}") as second:
            assert second.recv(2**16).startswith(b"HTTP/1.1 429 ")
    wait_until(lambda: left(state) == ([], []), "the end of a request whose client has gone")
    assert counted(state) == 0


def test_a_body_of_unknown_length_is_counted_as_it_comes(service, monkeypatch):
    url, state = service
    monkeypatch.setattr(arrivals, "STEP_BYTES", MIB // 4)
    limit(state, 2 * MIB)
    with begin(url, "datasets", "Transfer-Encoding: chunked", body=chunk(HEAD)) as connection:
        connection.sendall(chunk(b"x" * MIB))
        wait_until(lambda: counted(state) >= MIB * 3 // 4, "bytes that count before the request ends")
        connection.sendall(chunk(b"x" * (MIB + MIB // 2)))
        assert connection.recv(2**16).startswith(b"HTTP/1.1 429 ")
    wait_until(lambda: left(state) == ([], []), "the end of the request")
    assert counted(state) == 0


def test_room_for_exactly_the_file_is_enough(service):
    url, state = service
    limit(state, len(ARCHIVE))
    with httpx.Client(base_url=f"{url}/api/v1/", trust_env=False, timeout=60) as http:
        fields, content = FORMS["datasets"]
        files = {"file": ("a.zip", content)}
        assert http.post("datasets", data=fields, files=files).status_code == 202
        problem(http.post("datasets", data=fields, files=files), 429, "too_many_bytes")
        # Of a form without a file nothing is stored.
        upload = http.post("uploads", json={"size_bytes": 0})
        assert upload.status_code == 201, upload.text
        form = {"name": (None, "more"), "upload_id": (None, upload.json()["id"])}
        problem(http.post("datasets", files=form), 409, "upload_incomplete")


def test_a_database_that_is_away_for_a_while_ends_no_upload(service, monkeypatch):
    url, _ = service
    monkeypatch.setattr(arrivals, "RENEW_SECONDS", 0.0)
    asked, reserve = [], arrivals.waste.reserve

    def away(*given):
        asked.append(given)
        # At the head, while the body comes, and once it has come.
        if len(asked) == 2:
            raise OperationalError("BEGIN", None, Exception("away"))
        reserve(*given)

    monkeypatch.setattr(arrivals.waste, "reserve", away)
    with httpx.Client(base_url=f"{url}/api/v1/", trust_env=False, timeout=60) as http:
        fields, content = FORMS["datasets"]
        assert http.post("datasets", data=fields, files={"file": ("a.zip", content)}).status_code == 202
    assert len(asked) == 3


def test_a_slow_body_is_counted_anew_in_time(service, monkeypatch):
    """Else a sweep would take what it has reserved for what a killed process has left."""
    url, state = service
    monkeypatch.setattr(arrivals, "RENEW_SECONDS", 0.0)
    with begin(url, "datasets", f"Content-Length: {2 * MIB}", body=HEAD) as connection:
        wait_until(lambda: counted(state) == 2 * MIB - arrivals.FORM_BYTES, "a request whose bytes count")
        with state.database.write() as session:
            session.execute(delete(Waste))
        connection.sendall(b"x")
        wait_until(lambda: counted(state) == 2 * MIB - arrivals.FORM_BYTES, "a request that counts again")


@pytest.mark.parametrize("route", FORMS)
def test_an_answer_that_was_given_comes_again_in_a_full_project(service, route):
    url, state = service
    fields, content = FORMS[route]
    key = {"Idempotency-Key": "once"}
    with httpx.Client(base_url=f"{url}/api/v1/", trust_env=False, timeout=60) as http:

        def send(data=content, headers=key):
            return http.post(route, data=fields, files={"file": ("a.zip", data)}, headers=headers)

        first = send()
        assert first.status_code == 202
        limit(state, 1)
        before = left(state)
        again = send()
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["Idempotent-Replayed"] == "true"
        problem(send(content + b"more"), 422, "idempotency_mismatch")
        problem(send(headers={"Idempotency-Key": "other"}), 429, "too_many_bytes")
        assert left(state) == before


def test_nothing_is_made_of_a_body_that_was_read_for_its_digest_alone(service, monkeypatch):
    """The answer that was there when the request began went before it ended."""
    url, state = service
    fields, content = FORMS["datasets"]
    key = {"Idempotency-Key": "once"}
    with httpx.Client(base_url=f"{url}/api/v1/", trust_env=False, timeout=60) as http:

        def send():
            return http.post("datasets", data=fields, files={"file": ("a.zip", content)}, headers=key)

        assert send().status_code == 202
        read = arrivals.multipart.read

        async def late(*given):
            parts = await read(*given)
            with state.database.write() as session:
                session.execute(delete(IdempotencyKey))
            return parts

        monkeypatch.setattr(arrivals.multipart, "read", late)
        before = left(state)
        problem(send(), 409, "idempotency_in_flight")
        assert left(state) == before
        monkeypatch.setattr(arrivals.multipart, "read", read)
        assert send().status_code == 202
    with state.database.read() as session:
        assert len(session.scalars(select(Dataset)).all()) == 2


def test_a_file_counts_as_what_is_made_of_it(service):
    url, state = service
    with httpx.Client(base_url=f"{url}/api/v1/", trust_env=False, timeout=60) as http:
        fields, content = FORMS["datasets"]
        assert http.post("datasets", data=fields, files={"file": ("a.zip", content)}).status_code == 202
        fields, content = FORMS["backbones"]
        assert http.post("backbones", data=fields, files={"file": ("w", content)}).status_code == 202
    assert counted(state) == len(ARCHIVE) + len(b"weights")
    assert left(state)[1] == []
