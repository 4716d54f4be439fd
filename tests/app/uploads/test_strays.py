"""Multipart uploads that are open in the object store for long: whose row knows of them, and whose they are."""

import hashlib
import sys
from datetime import timedelta

import pytest

from app.inbox.s3 import S3Inbox
from app.services import upload_sweep
from app.services.receiving import Receiver
from tests.app.uploads.conftest import DATA, SHA256, desk
from tests.checks import problem


@pytest.fixture
def sweep(service, monkeypatch):
    """A sweep to which every multipart upload is old."""
    monkeypatch.setattr(sys.modules[S3Inbox.__module__], "STRAY", timedelta(seconds=-60))
    return lambda: upload_sweep.run(service.state.database, service.state.storage, service.state.inbox)


def open_in_store(service):
    client, bucket = service.state.inbox.client, service.state.inbox.bucket
    return {item["Key"] for item in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])}


def test_a_request_with_a_checksum_may_last(service, sweep):
    """Nothing of it is noted before its end but where its parts lie."""
    upload_id = service.begin()
    receiver = Receiver(desk(service), "default", upload_id, 0, checksum=("sha256", bytes.fromhex(SHA256))).open()
    receiver.write(DATA[:9_000_000])
    sweep()
    receiver.write(DATA[9_000_000:])
    assert receiver.end().state == "received"
    assert service.complete(upload_id).status_code == 200
    assert service.state.storage.fetch(f"incoming/default/{upload_id}").read_bytes() == DATA
    service.request("DELETE", f"/{upload_id}")


@pytest.mark.parametrize("data", [b"", b"abc", DATA])
def test_parts_of_a_request_that_was_refused_count_for_nothing(service, sweep, data):
    upload_id = service.begin(None)
    refused = service.patch(upload_id, 0, DATA[::-1], **{"Upload-Checksum": "sha1 " + "A" * 27 + "="})
    problem(refused, 460, "checksum_mismatch")
    assert service.patch(upload_id, 0, data, **{"Upload-Length": str(len(data))}).status_code == 204
    sweep()
    assert service.complete(upload_id, hashlib.sha256(data).hexdigest()).status_code == 200
    assert service.state.storage.fetch(f"incoming/default/{upload_id}").read_bytes() == data
    if isinstance(service.state.inbox, S3Inbox):
        assert [key for key in open_in_store(service) if upload_id in key] == []
    service.request("DELETE", f"/{upload_id}")


def test_a_sweep_ends_graft_s_own_alone(service, sweep):
    if not isinstance(service.state.inbox, S3Inbox):
        return
    inbox, upload_id = service.state.inbox, service.begin()
    theirs = ["incoming/default/theirs", "incoming/up_theirs", f"incoming/default/{upload_id}/theirs"]
    ours = [f"incoming/default/{upload_id}", f"incoming/default/ds_{upload_id.removeprefix('up_')}"]
    before = open_in_store(service)
    started = {key: inbox.start_parts(key) for key in theirs + ours}
    sweep()
    assert open_in_store(service) - before == {inbox.storage.name(key) for key in theirs}
    for key in theirs:
        inbox.abort(inbox.storage.name(key), started[key])
    service.request("DELETE", f"/{upload_id}")
