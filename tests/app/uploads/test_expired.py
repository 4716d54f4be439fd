"""An upload that has expired is in nobody's way, whether or not a sweep has come by since."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from app.db.base import now
from app.services import limits, stored_bytes, upload_sweep
from app.services.limits import Limits
from app.services.upload_leases import Lease
from tests.app.uploads.conftest import desk
from tests.checks import problem


def expire(service, upload_id):
    service.change(upload_id, lambda row: setattr(row, "expires_at", now() - timedelta(seconds=1)))


def counted(service):
    with service.state.database.read() as session:
        return stored_bytes.total(session, "default")


def listed(service):
    return [row["id"] for row in service.request("GET").json()["data"]]


def test_it_is_not_listed_and_can_be_deleted(service):
    half, whole, live = service.begin(10), service.whole(b"all of it"), service.begin(10)
    service.patch(half, 0, b"abc")
    for upload_id in (half, whole):
        expire(service, upload_id)
        problem(service.request("GET", f"/{upload_id}"), 410, "upload_gone")
    assert listed(service) == [live]
    for upload_id in (half, whole):
        assert service.request("DELETE", f"/{upload_id}").status_code == 204
        problem(service.request("DELETE", f"/{upload_id}"), 404, "not_found")
    assert [key for key in service.stored() if half in key or whole in key] == []
    service.request("DELETE", f"/{live}")


def test_one_that_was_used_is_listed_and_belongs_to_what_was_made_of_it(service):
    upload_id = service.whole(b"all of it")

    def use(row):
        row.state, row.used_by = "used", "ds_1"

    service.change(upload_id, use)
    expire(service, upload_id)
    assert upload_id in listed(service)
    problem(service.request("DELETE", f"/{upload_id}"), 409, "upload_used")
    service.change(upload_id, lambda row: setattr(row, "state", "complete"))
    assert service.request("DELETE", f"/{upload_id}").status_code == 204


@pytest.fixture
def full(service):
    """An upload that takes all that the project may store."""
    upload_id = service.begin(1000)
    with service.state.database.write() as session:
        limits.put(session, "default", Limits(max_bytes=stored_bytes.total(session, "default")))
    yield upload_id
    with service.state.database.write() as session:
        limits.put(session, "default", Limits())


def test_it_takes_no_room(service, full):
    told = {"Upload-Length": "1000"}
    problem(service.request("POST", headers=told), 429, "too_many_bytes")
    expire(service, full)
    another = service.begin(1000)
    for upload_id in (full, another):
        assert service.request("DELETE", f"/{upload_id}").status_code == 204


def test_it_counts_while_a_request_writes_it_which_keeps_it(service):
    before, upload_id = counted(service), service.begin(1000)
    writer = Lease(desk(service), "default", upload_id)
    writer.take(lambda _session, _row: None)
    expire(service, upload_id)
    assert counted(service) == before + 1000
    writer.release()
    assert counted(service) == before
    service.request("DELETE", f"/{upload_id}")


def test_a_sweep_leaves_one_that_a_request_is_at(service):
    """Parts that the client has put into an object store move no clock; they are verified for minutes."""
    state, upload_id = service.state, service.begin(10)
    assert service.patch(upload_id, 0, b"0123456789").status_code == 204
    writer = Lease(desk(service), "default", upload_id)
    writer.take(lambda _session, _row: None)
    expire(service, upload_id)
    upload_sweep.run(state.database, state.storage, state.inbox)
    assert writer.change(lambda _session, row: setattr(row, "expires_at", now())).received_bytes == 10
    assert [key for key in service.stored() if upload_id in key] != []
    writer.release()
    upload_sweep.run(state.database, state.storage, state.inbox)
    problem(service.request("GET", f"/{upload_id}"), 404, "not_found")
    assert [key for key in service.stored() if upload_id in key] == []


def test_a_sweep_and_a_deletion_at_once_are_both_through(service):
    state = service.state
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            upload_id = service.whole(b"all of it")
            expire(service, upload_id)
            sweeping = threads.submit(upload_sweep.run, state.database, state.storage, state.inbox)
            deleted = service.request("DELETE", f"/{upload_id}")
            assert deleted.status_code == 204 or problem(deleted, 404, "not_found")
            sweeping.result()
            assert [key for key in service.stored() if upload_id in key] == []
