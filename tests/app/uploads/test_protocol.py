"""The tus protocol as its own clients speak it, and what they may do wrong."""

import base64
import hashlib
import io
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from app.api import tus
from tests.app.uploads.conftest import BODY, DATA, SHA256, TUS
from tests.checks import problem
from tests.conftest import wait_until


def sha1(data):
    return "sha1 " + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


@pytest.mark.parametrize("checksums", [False, True])
def test_a_client_of_others_passes(service, monkeypatch, checksums):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from tusclient.client import TusClient

    client = TusClient(f"{service.url}/api/v1/uploads")
    sender = client.uploader(
        file_stream=io.BytesIO(DATA), chunk_size=3_000_000, metadata={"filename": "bilder \u2603.zip"},
        upload_checksum=checksums,
    )  # fmt: skip
    sender.upload_chunk()
    # Another program goes on with what the first has begun.
    again = client.uploader(
        file_stream=io.BytesIO(DATA), url=sender.url, chunk_size=4_000_000, upload_checksum=checksums
    )
    assert again.offset == 3_000_000
    again.upload()
    upload_id = sender.url.rpartition("/")[2]
    assert service.request("GET", f"/{upload_id}").json()["state"] == "received"
    done = service.complete(upload_id).json()
    assert (done["state"], done["filename"], done["sha256"]) == ("complete", "bilder \u2603.zip", SHA256)
    assert service.state.storage.fetch(f"incoming/default/{upload_id}").read_bytes() == DATA
    assert service.stored().count(f"incoming/default/{upload_id}") == 1
    assert not [key for key in service.stored() if key.startswith("uploads/")]


def test_abilities_are_told(service):
    for path in ("", "/up_0"):
        found = service.http.options(f"/api/v1/uploads{path}")
        assert found.status_code == 204
        assert found.headers["Tus-Version"] == "1.0.0"
        assert int(found.headers["Tus-Max-Size"]) == service.state.settings.max_upload_bytes
        assert found.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"
        wanted = {"creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "termination"}
        assert set(found.headers["Tus-Extension"].split(",")) == wanted


def test_what_head_tells(service):
    words = f"filename {base64.b64encode(b'a.zip').decode()},draft"
    upload_id = service.begin(10, **{"Upload-Metadata": words})
    service.patch(upload_id, 0, b"1234")
    found = service.request("HEAD", f"/{upload_id}").headers
    assert (found["Upload-Offset"], found["Upload-Length"], found["Upload-Metadata"]) == ("4", "10", words)
    assert (found["Cache-Control"], found["Tus-Resumable"]) == ("no-store", "1.0.0")
    left = parsedate_to_datetime(found["Upload-Expires"]) - datetime.now(UTC)
    assert 86_000 < left.total_seconds() <= 86_400


def test_bytes_may_come_with_the_beginning(service):
    made = service.request("POST", headers={"Upload-Length": "10", "Content-Type": BODY}, content=b"12345")
    assert (made.status_code, made.headers["Upload-Offset"]) == (201, "5")
    upload_id = made.json()["id"]
    assert service.patch(upload_id, 5, b"67890").headers["Upload-Offset"] == "10"
    assert service.complete(upload_id, hashlib.sha256(b"1234567890").hexdigest()).status_code == 200
    before = service.request("GET").json()["data"]
    refused = service.request("POST", headers={"Upload-Length": "3", "Content-Type": BODY}, content=b"12345")
    problem(refused, 413, "upload_too_long")
    assert service.request("GET").json()["data"] == before


def test_size_may_be_told_later_and_once(service):
    upload_id = service.begin(None)
    assert service.request("HEAD", f"/{upload_id}").headers["Upload-Defer-Length"] == "1"
    assert service.patch(upload_id, 0, b"abc").status_code == 204
    problem(service.complete(upload_id), 409, "upload_incomplete")
    less = problem(service.patch(upload_id, 3, b"d", **{"Upload-Length": "2"}), 400, "size_mismatch")
    assert less["detail"].endswith("found 2, with none before; leave Upload-Length out, or begin a new upload")
    assert service.patch(upload_id, 3, b"d", **{"Upload-Length": "5"}).headers["Upload-Length"] == "5"
    other = problem(service.patch(upload_id, 4, b"e", **{"Upload-Length": "6"}), 400, "size_mismatch")
    assert "found 6, with 5 before; leave Upload-Length out" in other["detail"]
    assert service.patch(upload_id, 4, b"e").status_code == 204
    assert service.complete(upload_id, hashlib.sha256(b"abcde").hexdigest()).status_code == 200


def test_an_empty_file_is_there_at_once(service):
    upload_id = service.begin(0)
    done = service.complete(upload_id, hashlib.sha256().hexdigest())
    assert (done.json()["state"], done.json()["size_bytes"]) == ("complete", 0)


def test_wrong_checksum_keeps_nothing(service):
    upload_id = service.begin()
    problem(service.patch(upload_id, 0, DATA, **{"Upload-Checksum": sha1(DATA[1:])}), 460, "checksum_mismatch")
    assert service.offset(upload_id) == 0
    assert service.patch(upload_id, 0, DATA, **{"Upload-Checksum": sha1(DATA)}).status_code == 204
    assert service.complete(upload_id).status_code == 200


def test_out_of_order_and_over_long(service):
    upload_id = service.begin(10)
    assert service.patch(upload_id, 0, b"1234").status_code == 204
    for offset in (0, 3, 5, 10, 2**40):
        assert problem(service.patch(upload_id, offset, b"xx"), 409, "offset_mismatch")["offset"] == 4
    problem(service.patch(upload_id, 4, b"1234567"), 413, "upload_too_long")
    problem(service.patch(upload_id, 4, iter([b"1234", b"567"])), 413, "upload_too_long")
    assert service.offset(upload_id) == 4
    assert service.patch(upload_id, 4, b"567890").status_code == 204
    problem(service.patch(upload_id, 10, b"1"), 413, "upload_too_long")
    assert service.patch(upload_id, 10, b"").status_code == 204
    assert service.complete(upload_id, hashlib.sha256(b"1234567890").hexdigest()).status_code == 200


CREATION = [
    ({}, 400, "tus_header"),
    ({"Upload-Length": "-1"}, 400, "tus_header"),
    ({"Upload-Length": "1e3"}, 400, "tus_header"),
    ({"Upload-Length": "1" * 19}, 400, "tus_header"),
    ({"Upload-Length": "10", "Upload-Defer-Length": "1"}, 400, "tus_header"),
    ({"Upload-Defer-Length": "2"}, 400, "tus_header"),
    ({"Upload-Length": str(2**50)}, 413, "upload_too_long"),
    ({"Upload-Length": "1", "Upload-Metadata": "filename !!!"}, 400, "tus_header"),
    ({"Upload-Length": "1", "Upload-Metadata": "filename \xe9"}, 400, "tus_header"),
    ({"Upload-Length": "1", "Upload-Metadata": "a QQ==,a QQ=="}, 400, "tus_header"),
    ({"Upload-Length": "1", "Upload-Metadata": "a " + "QUFB" * 3000}, 400, "tus_header"),
    ({"Upload-Length": "1", "Upload-Concat": "partial"}, 501, "unsupported"),
    ({"Upload-Length": "1", "Tus-Resumable": "0.2.2"}, 412, "tus_version"),
    ({"Upload-Length": "1", "Upload-Checksum": "crc32 AAAA"}, 400, "tus_header"),
    ({"Upload-Length": "1", "Upload-Checksum": "sha1 \xe9"}, 400, "tus_header"),
]


@pytest.mark.parametrize(("headers", "status", "code"), CREATION)
def test_headers_that_make_no_upload(service, headers, status, code):
    found = service.request("POST", headers={name: value.encode("latin-1") for name, value in headers.items()})
    told = problem(found, status, code)["detail"]
    assert (told.count("; "), "None" in told) == (2, False)
    assert found.headers["Tus-Resumable"] == "1.0.0"
    assert (status == 412) == ("Tus-Version" in found.headers)


def test_requests_that_are_not_understood(service):
    upload_id = service.begin(3)
    path = f"/api/v1/uploads/{upload_id}"
    right = {**TUS, "Upload-Offset": "0", "Content-Type": BODY}
    for change, status, code in [
        ({"Tus-Resumable": "2.0.0"}, 412, "tus_version"),
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported_media_type"),
        ({"Upload-Offset": "x"}, 400, "tus_header"),
        ({"Upload-Checksum": "sha1 QUFB"}, 400, "tus_header"),
        ({"Upload-Checksum": b"sha1 \xe9"}, 400, "tus_header"),
        ({"Origin": "https://evil.example"}, 403, "cross_site"),
        ({"Host": "evil.example"}, 421, "unknown_host"),
    ]:
        problem(service.http.patch(path, content=b"abc", headers={**right, **change}), status, code)
    problem(service.http.patch(path, content=b"abc", headers={"Content-Type": BODY}), 412, "tus_version")
    problem(service.request("POST", content=b"abc", headers={"Upload-Length": "3", "Content-Type": "text/plain"}), 415,
            "unsupported_media_type")  # fmt: skip
    problem(service.patch("up_none", 0, b"abc"), 404, "not_found")
    for body in ({"via": "ftp"}, {"size_bytes": -1}, {"size_bytes": "3"}, {"more": 1}):
        problem(service.request("POST", json=body), 422, "invalid_payload")
    problem(service.complete(upload_id, "abc"), 422, "invalid_payload")
    problem(service.complete(upload_id), 409, "upload_incomplete")
    assert service.offset(upload_id) == 0


def test_methods_in_the_clothes_of_a_post(service):
    upload_id = service.begin(3)
    dressed = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": BODY}
    assert service.request("POST", f"/{upload_id}", content=b"abc", headers=dressed).status_code == 204
    dressed = {"X-HTTP-Method-Override": "DELETE"}
    foreign = {**dressed, "Origin": "https://evil.example"}
    problem(service.request("POST", f"/{upload_id}", headers=foreign), 403, "cross_site")
    assert service.request("GET", f"/{upload_id}", headers=dressed).status_code == 200
    assert service.request("POST", f"/{upload_id}", headers=dressed).status_code == 204
    problem(service.request("GET", f"/{upload_id}"), 404, "not_found")


def test_sha256_decides(service):
    upload_id = service.begin(3)
    service.patch(upload_id, 0, b"abc")
    found = problem(service.complete(upload_id, "0" * 64), 409, "sha256_mismatch")
    assert found["sha256"] == hashlib.sha256(b"abc").hexdigest()
    right = hashlib.sha256(b"abc").hexdigest()
    first = service.complete(upload_id, right.upper())
    assert first.json()["sha256"] == right
    assert service.complete(upload_id, right).json() == first.json()
    problem(service.complete(upload_id, "0" * 64), 409, "sha256_mismatch")
    assert service.request("DELETE", f"/{upload_id}").status_code == 204
    problem(service.complete(upload_id, right), 404, "not_found")
    assert not [key for key in service.stored() if upload_id in key]


def test_broken_connections_keep_what_came(service):
    upload_id, sent = service.begin(), 0
    for stop in (1_000_001, 7_000_000, 9_000_001):
        with service.begin_patch(upload_id, sent, len(DATA) - sent) as connection:
            connection.sendall(DATA[sent:stop])
        # The server forgets what had come from the network and was not read when it learns that nobody is there.
        wait_until(lambda stop=stop: stop - 2**17 <= service.offset(upload_id) <= stop, f"{stop} bytes")
        wait_until(lambda: service.patch(upload_id, 2**40, b"x").status_code == 409, "an upload that nobody writes to")
        sent = service.offset(upload_id)
    assert service.patch(upload_id, sent, DATA[sent:]).status_code == 204
    assert service.complete(upload_id).status_code == 200


def answer(connection):
    """Status of what comes back on a connection."""
    return int(connection.recv(4096).split()[1])


@pytest.fixture
def patient(monkeypatch):
    """A writer that a busy machine keeps waiting stays the one that writes."""
    monkeypatch.setattr(tus, "PAUSE_SECONDS", 30)


def test_of_two_writers_one_wins(service, patient):
    upload_id = service.begin(100_000)
    with service.begin_patch(upload_id, 0, 100_000) as first:
        first.sendall(b"a" * 50_000)
        # Its lease is taken before anything of the body is read.
        wait_until(lambda: service.patch(upload_id, 1, b"b").status_code == 423, "a first writer that has begun")
        found = service.patch(upload_id, 0, b"b" * 100_000)
        problem(found, 423, "upload_locked")
        assert found.headers["Retry-After"] == "1"
        problem(service.complete(upload_id), 423, "upload_locked")
        first.sendall(b"a" * 50_000)
        assert answer(first) == 204
    assert service.complete(upload_id, hashlib.sha256(b"a" * 100_000).hexdigest()).status_code == 200


def test_many_writers_at_once(service):
    upload_id, found = service.begin(1000), []
    bodies = [bytes([number]) * 1000 for number in range(6)]
    threads = [
        threading.Thread(target=lambda body=body: found.append(service.patch(upload_id, 0, body).status_code))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(204) == 1
    assert set(found) <= {204, 409, 423}
    whole = b"".join(service.state.inbox.read(f"incoming/default/{upload_id}"))
    assert whole in bodies


def test_a_writer_that_falls_silent_keeps_nobody_out(service, monkeypatch):
    monkeypatch.setattr(tus, "PAUSE_SECONDS", 0.1)
    upload_id = service.begin(100_000)
    with service.begin_patch(upload_id, 0, 100_000) as silent:
        silent.sendall(b"a" * 30_000)
        wait_until(lambda: service.offset(upload_id) == 30_000, "what the silent one sent")
        # It may go on itself, as long as nobody else has,
        silent.sendall(b"a" * 10_000)
        wait_until(lambda: service.offset(upload_id) == 40_000, "what it sent later")
        wait_until(lambda: service.patch(upload_id, 40_000, b"b" * 10_000).status_code == 204, "the next writer")
        # and not behind its back.
        silent.sendall(b"a" * 60_000)
        assert answer(silent) == 409
    assert service.offset(upload_id) == 50_000


def test_a_body_that_stops_for_good_is_ended(service, monkeypatch):
    monkeypatch.setattr(tus, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(tus, "MAX_PAUSES", 3)
    upload_id = service.begin(1000)
    with service.begin_patch(upload_id, 0, 1000) as connection:
        connection.sendall(b"a" * 10)
        assert answer(connection) == 408
    assert service.offset(upload_id) == 10


def test_an_upload_may_be_deleted_while_it_is_written(service, patient):
    upload_id = service.begin(len(DATA))
    with service.begin_patch(upload_id, 0, len(DATA)) as connection:
        connection.sendall(DATA[:1000])
        wait_until(lambda: service.patch(upload_id, 1, b"b").status_code == 423, "a writer")
        assert service.request("DELETE", f"/{upload_id}").status_code == 204
        connection.sendall(DATA[1000:])
        assert answer(connection) == 410
    problem(service.patch(upload_id, 0, b"b"), 404, "not_found")
    time.sleep(0.1)
    assert not [key for key in service.stored() if upload_id in key]
