"""What the server's parser stops at is answered as every other error, and only where the answer can be understood."""

import json
import re
import shutil

import pytest

from app.api import safety
from app.settings import Settings
from tests import listening
from tests.app.api.test_connections import LIVE, answer, connected, rest

HOST = b"Host: 127.0.0.1\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
# A route that reads its body, and one that is answered before it.
READS, KNOWS = (b"POST " + path + b" HTTP/1.1\r\n" + CHUNKED for path in (b"/v2/repository/index", b"/none"))
NATIVE = b"POST /api/v1/jobs HTTP/1.1\r\n"
NONE = {
    "two lengths": NATIVE + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a bad chunk": NATIVE + CHUNKED + b"zz\r\n",
    "an unknown method": b"GRAFT /api/v1/jobs HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    "a proxy": b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n" + HOST + b"\r\n",
}
STATUS = re.compile(rb"HTTP/1\.1 [0-9]")
EXTENSION = b"1;" + b"a" * 200_000


@pytest.fixture(scope="module")
def url(sqlite_template, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(sqlite_template, home / "graft.db")
    with listening.application(Settings(home=home)) as (url, _):
        yield url


def told(found, status):
    """The document of the one answer that there is."""
    head, _, body = found.partition(b"\r\n\r\n")
    assert len(STATUS.findall(found)) == 1
    assert head.startswith(b"HTTP/1.1 %d " % status)
    lines = head.lower().split(b"\r\n")
    for name, value in (*safety.HEADERS, safety.POLICY, (b"connection", b"close")):
        assert name + b": " + value.lower() in lines
    return json.loads(body)


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_http_is_a_problem(url, case):
    with connected(url) as connection:
        connection.sendall(NONE[case])
        document = told(rest(connection), 400)
    assert document["code"] == "bad_request"
    assert document["detail"].startswith("expected an HTTP/1.1 request; found ")
    assert document["instance"] == ("/api/v1/jobs" if NATIVE in NONE[case] else document["instance"])


def test_an_endless_extension_of_a_chunk_is_refused(url):
    with connected(url) as connection:
        connection.sendall(READS + EXTENSION)
        assert "of at most" in told(rest(connection), 431)["error"]


@pytest.mark.parametrize("bad", [b"zz\r\n", EXTENSION], ids=["chunk", "extension"])
def test_what_has_its_answer_gets_no_other_one(url, bad):
    with connected(url) as connection:
        connection.sendall(KNOWS)
        assert answer(connection).startswith(b"HTTP/1.1 404 ")
        connection.sendall(bad)
        assert not STATUS.search(rest(connection))


@pytest.mark.parametrize("bad", [b"\x16\x03\x01\r\n", NONE["two lengths"], READS + b"zz\r\n", READS + EXTENSION])
def test_no_answer_comes_before_that_of_an_earlier_request(url, bad):
    with connected(url) as connection:
        connection.sendall(LIVE + b"\r\n" + bad)
        found = rest(connection)
    # An answer to the second one stands behind that to the first, where there was time for that.
    assert not found or found.startswith(b"HTTP/1.1 200 ")


def test_the_next_request_of_a_connection_is_refused_behind_the_answer_to_the_first(url):
    with connected(url) as connection:
        connection.sendall(LIVE + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\x16\x03\x01\x02\x00")
        assert told(rest(connection), 400)["instance"] == ""


async def endless(scope, receive, send):
    """Begins an answer, and goes on with it when more of the body comes, or the client has gone."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await receive()
    await send({"type": "http.response.body", "body": b"ended"})


async def waiting(scope, receive, send):
    """Answers once the client has gone."""
    assert scope["type"] == "http"
    while (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("bad", [b"zz\r\n", EXTENSION], ids=["chunk", "extension"])
def test_nothing_is_written_into_an_answer(bad):
    with listening.listening(endless) as url, connected(url) as connection:
        connection.sendall(KNOWS)
        found = b""
        while b"begun" not in found:
            found += connection.recv(2**16)
        connection.sendall(bad)
        assert not STATUS.search(rest(connection))


def test_nothing_is_written_behind_the_refusal():
    with listening.listening(waiting) as url, connected(url) as connection:
        connection.sendall(KNOWS + b"1\r\na\r\nzz\r\n")
        told(rest(connection), 400)
