"""A request's head is of a bounded size, and comes in a bounded time; all else is as the server has it."""

import json
import shutil
import socket
import time
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from app.api.connections import MAX_AHEAD, MAX_HEAD_BYTES, Connection
from app.settings import Settings
from tests import listening
from tests.conftest import wait_until

LIVE = b"HEAD /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HEAD_SECONDS = 0.6


class Hurried(Connection):
    head_seconds = read_seconds = HEAD_SECONDS


@pytest.fixture(scope="module")
def url(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(sqlite_template, home / "graft.db")
    with listening.application(Settings(home=home), Hurried) as (url, _):
        yield url


@contextmanager
def connected(url):
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        yield connection


def rest(connection):
    """All that comes until the connection is closed, or reset: what was sent and never read does that."""
    found = b""
    with suppress(ConnectionError):
        while piece := connection.recv(2**16):
            found += piece
    return found


def answer(connection, size=1):
    """What comes until so many answers are there; none of them has a body."""
    found = b""
    while found.count(b"\r\n\r\n") < size:
        piece = connection.recv(2**16)
        assert piece
        found += piece
    return found


def floods(begun, piece, url):
    """How much of an endless head is taken, and what is said to it."""
    num_sent = 0
    with connected(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**15)
        with suppress(ConnectionError):
            connection.sendall(begun)
            while num_sent < 2**28:
                num_sent += connection.send(piece)
        return num_sent, rest(connection)


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (LIVE + b"X: ", b"a" * 2**14),
        (LIVE, b"X: a\r\n" * 2**12),
        (LIVE, b"a" * 2**14),
        (b"GET /v2/", b"a" * 2**14),
        (b"GET /v2/?", b"a" * 2**14),
        (b"", b"\r\n" * 2**13),
    ],
    ids=["value", "fields", "name", "path", "query", "lines"],
)
def test_an_endless_head_is_refused(url, begun, piece):
    num_sent, found = floods(begun, piece, url)
    assert num_sent < 2**24
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in head
    document = json.loads(body)
    assert str(MAX_HEAD_BYTES) in document.get("detail", document.get("error"))


def test_the_refusal_is_a_problem(url):
    _, found = floods(b"GET /api/v1/mod%65ls?limit=3 HTTP/1.1\r\nX: ", b"a" * 2**14, url)
    document = json.loads(found.partition(b"\r\n\r\n")[2])
    assert (document["status"], document["code"]) == (431, "head_too_large")
    assert document["instance"] == "/api/v1/models"


def test_a_whole_head_counts_with_what_its_fields_take(url):
    with connected(url) as connection:
        connection.sendall(LIVE + b"a:\r\n" * (MAX_HEAD_BYTES // 33) + b"\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 431 ")
    with connected(url) as connection:
        connection.sendall(LIVE + b"X: " + b"a" * (MAX_HEAD_BYTES - 1000) + b"\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_endless_trailers_end_the_connection(url):
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    num_sent, _ = floods(head + b"2\r\n{}\r\n0\r\nX: ", b"a" * 2**14, url)
    assert num_sent < 2**24


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"GET ", LIVE, LIVE + b"X: "])
def test_an_unfinished_head_is_not_waited_for(url, begun):
    began = time.monotonic()
    with connected(url) as connection:
        connection.sendall(begun)
        assert rest(connection) == b""
    # The event loop's clock may be a millisecond ahead of this one.
    assert 0.9 * HEAD_SECONDS < time.monotonic() - began < HEAD_SECONDS + 5


def test_dripping_does_not_help(url):
    began = time.monotonic()
    with connected(url) as connection, suppress(ConnectionError):
        connection.sendall(LIVE + b"X: ")
        while time.monotonic() - began < HEAD_SECONDS + 5:
            connection.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began < HEAD_SECONDS + 5


def test_the_next_head_of_a_connection_has_the_same_limits(url):
    with connected(url) as connection:
        connection.sendall(LIVE + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert rest(connection) == b""
    num_sent, found = floods(LIVE + b"\r\n" + LIVE + b"X: ", b"a" * 2**14, url)
    assert num_sent < 2**24
    # Nobody waits for the first answer so that the second request can be refused behind it.
    assert not found or found.startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_rests_between_requests_stays(url):
    with connected(url) as connection:
        for _ in range(2):
            connection.sendall(LIVE + b"\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
            time.sleep(2 * HEAD_SECONDS)


def test_requests_at_once_count_each_for_itself(url):
    number = MAX_AHEAD
    with connected(url) as connection:
        connection.sendall((LIVE + b"X: " + b"a" * 1000 + b"\r\n\r\n") * number)
        assert answer(connection, number).count(b"HTTP/1.1 200 ") == number


def test_a_body_is_no_head(url):
    """In pieces of one byte, too, each with a line of its own; and one that takes longer than a head may."""

    def slowly():
        for _ in range(4):
            yield b" " * 2**10
            time.sleep(HEAD_SECONDS / 2)

    with httpx.Client(base_url=url, trust_env=False) as http:
        for content in (b" " * 2**22, iter([b" "] * 2**15), slowly()):
            answered = http.post("/api/v1/jobs", content=content, headers={"Content-Type": "application/json"})
            assert answered.status_code in (413, 422), answered.text


def test_a_body_that_nobody_reads_does_not_hold_the_connection(url):
    """The answer is there before the body's end, and its client falls silent."""
    with connected(url) as connection:
        connection.sendall(b"POST /none HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"a")
        began = time.monotonic()
        rest(connection)
    assert time.monotonic() - began < HEAD_SECONDS + 5


WISHES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n",
}


@pytest.mark.parametrize("size", [1, 50, 2**16])
@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_for_another_protocol_is_answered_in_this_one(url, wish, size):
    """With its body, which no parser may take for the next request; Java's client wishes so in each first request."""
    body = b'{"ready": true}'
    head = b"POST /v2/repository/index HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    asked = head + WISHES[wish] + b"Content-Length: %d\r\n\r\n" % len(body) + body
    sent = asked * 2 + LIVE + WISHES[wish] + b"\r\n"
    with connected(url) as connection:
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
        found = answer(connection, 3)
    assert (found.count(b"HTTP/1.1 200 OK"), found.count(b"\r\n\r\n[]"), found.count(b"HTTP/1.1")) == (3, 2, 3)


def test_a_body_behind_a_wish_is_not_the_next_request(url):
    hidden = LIVE + b"\r\n"
    head = b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n"
    with connected(url) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
        found = rest(connection)
    assert (found.count(b"HTTP/1.1"), found[:12]) == (1, b"HTTP/1.1 405")


@pytest.mark.parametrize("wish", [b"", *WISHES.values()])
def test_we_are_no_proxy(url, wish):
    with connected(url) as connection:
        connection.sendall(b"CONNECT / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + wish + b"\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 400")


def test_many_wishes_at_once_take_no_longer_than_as_many_requests(url):
    """Each begins a parser of its own, which copies nothing of what comes behind it."""
    number = MAX_AHEAD
    with connected(url) as connection:
        connection.sendall((LIVE + WISHES["h2c"] + b"\r\n") * number)
        assert answer(connection, number).count(b"HTTP/1.1 200 OK") == number


def test_requests_without_end_ahead_of_their_answers_end_the_connection(url):
    number = 20_000
    with connected(url) as connection:
        with suppress(ConnectionError):
            connection.sendall((LIVE + b"\r\n") * number)
        assert rest(connection).count(b"HTTP/1.1 200 OK") <= number / 10


def test_whoever_reads_nothing_is_not_waited_for(url):
    with socket.socket() as connection:
        # So small that the system itself holds less than an answer.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        parts = urlsplit(url)
        connection.connect((parts.hostname, parts.port))
        place = connection.getsockname()
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * MAX_AHEAD)

        def is_open():
            found = psutil.Process().net_connections("tcp")
            return any(one.raddr == place and one.status == "ESTABLISHED" for one in found)

        wait_until(is_open, "the connection")
        wait_until(lambda: not is_open(), "its end")


def test_whoever_reads_slowly_is_waited_for(url):
    with connected(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        number = 8
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * number)
        end, found = time.monotonic() + 4 * HEAD_SECONDS, b""
        while time.monotonic() < end:
            found += connection.recv(2**13)
            time.sleep(0.02)
        while found.count(b"HTTP/1.1 200 OK") < number:
            piece = connection.recv(2**16)
            assert piece
            found += piece
