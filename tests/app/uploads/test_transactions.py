"""Whoever asks the object store holds nothing in the database meanwhile: the store may take its time."""

import pytest
from sqlalchemy import text

from app.services import limits, stored_bytes
from app.services.limits import Limits
from tests import factories
from tests.app.api.test_evaluations import SPEC
from tests.checks import problem

# A folder answers at once, and on SQLite one writes at a time anyway.
pytestmark = [pytest.mark.server, pytest.mark.parametrize("service", ["team"], indirect=True)]
ARCHIVE = factories.pack(factories.pictures(2))
WRITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL")


@pytest.fixture
def asked(service):
    """Calls of the object store so far, each with the transactions that wrote or locked a row at that moment."""
    found = []

    def look(model, **_):
        with service.state.database.read() as session:
            found.append((model.name, session.scalar(WRITING)))

    hooks = service.state.inbox.client.meta.events
    hooks.register("before-call.s3", look)
    yield found
    hooks.unregister("before-call.s3", look)


@pytest.fixture
def full(service):
    """The project may store nothing more."""
    with service.state.database.write() as session:
        limits.put(session, "default", Limits(max_bytes=stored_bytes.total(session, "default")))
    yield
    with service.state.database.write() as session:
        limits.put(session, "default", Limits())


def multipart_uploads(service):
    inbox = service.state.inbox
    return {item["Key"] for item in inbox.client.list_multipart_uploads(Bucket=inbox.bucket).get("Uploads", [])}


def test_while_the_beginning_of_an_upload_is_read(service, asked):
    with service.state.database.write() as session:
        factories.model(session, "colours", spec=SPEC)
    for url, wish in (
        ("/api/v1/datasets", {"name": "pets"}),
        ("/api/v1/jobs", {"kind": "predict", "model": "colours"}),
    ):
        upload_id = service.whole(ARCHIVE)
        asked.clear()
        body, key = {**wish, "upload_id": upload_id}, {"Idempotency-Key": upload_id}
        assert service.http.post(url, json=body, headers=key).status_code == 202
        assert ("GetObject", 0) in asked
        assert [one for one in asked if one[1]] == []


def test_while_an_upload_in_parts_is_begun(service, asked):
    begun = service.request("POST", json={"via": "s3", "size_bytes": 10})
    assert begun.status_code == 201
    assert ("CreateMultipartUpload", 0) in asked
    assert [one for one in asked if one[1]] == []
    service.request("DELETE", f"/{begun.json()['id']}")


def test_one_in_parts_that_is_refused_leaves_nothing_open(service, asked, full):
    before = multipart_uploads(service)
    problem(service.request("POST", json={"via": "s3", "size_bytes": 10}), 429, "too_many_bytes")
    assert multipart_uploads(service) == before
    assert [one for one in asked if one[1]] == []
    hooks = service.state.inbox.client.meta.events

    def away(**_):
        raise ConnectionError("the object store has gone")

    hooks.register("before-call.s3.AbortMultipartUpload", away)
    try:
        # What cannot be given up now is left to the sweep, and the client hears why it was refused.
        problem(service.request("POST", json={"via": "s3", "size_bytes": 10}), 429, "too_many_bytes")
    finally:
        hooks.unregister("before-call.s3.AbortMultipartUpload", away)
