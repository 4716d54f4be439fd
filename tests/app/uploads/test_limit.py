"""An upload whose size nobody has told stays within what its project may store."""

import base64

import pytest

from app.errors import TooMany
from app.services import limits, stored_bytes
from app.services.limits import Limits
from app.services.receiving import Receiver
from tests.app.uploads.conftest import desk
from tests.checks import problem

ROOM = 100_000


@pytest.fixture
def upload_id(service):
    upload_id = service.begin(None)
    _give(service, ROOM)
    yield upload_id
    with service.state.database.write() as session:
        limits.put(session, "default", Limits())
    assert service.request("DELETE", f"/{upload_id}").status_code == 204


@pytest.mark.parametrize("num_bytes", [ROOM + 1, 12 * 2**20], ids=["a tail", "a part"])
@pytest.mark.parametrize("chunked", [False, True])
def test_of_what_is_refused_nothing_stays(service, upload_id, num_bytes, chunked):
    before = service.stored()
    for _ in range(3):
        pieces = iter([bytes(ROOM // 2)] * 2 + [bytes(num_bytes - ROOM)]) if chunked else bytes(num_bytes)
        refused = service.patch(upload_id, service.offset(upload_id), pieces)
        problem(refused, 429, "too_many_bytes")
    kept = service.offset(upload_id)
    assert kept <= ROOM
    new = set(service.stored()) - set(before)
    assert sum(service.state.storage.stat(key).size_bytes for key in new) == kept


def test_what_fits_is_kept(service, upload_id):
    assert service.patch(upload_id, 0, bytes(ROOM)).status_code == 204
    problem(service.patch(upload_id, ROOM, b"1"), 429, "too_many_bytes")


def test_room_that_is_taken_meanwhile_leaves_no_tail(service, upload_id):
    before = service.stored()
    for _ in range(2):
        receiver = Receiver(desk(service), "default", upload_id, 0).open()
        receiver.write(bytes(ROOM))
        _give(service, ROOM - 1)
        with pytest.raises(TooMany):
            receiver.end()
        receiver.close()
        _give(service, ROOM)
    new = set(service.stored()) - set(before)
    assert sum(service.state.storage.stat(key).size_bytes for key in new) == 0


def test_of_a_body_with_another_checksum_nothing_stays(service, upload_id):
    before = service.stored()
    wrong = {"Upload-Checksum": f"sha256 {base64.b64encode(bytes(32)).decode()}"}
    assert service.patch(upload_id, 0, bytes(ROOM // 2), **wrong).status_code == 460
    assert service.offset(upload_id) == 0
    new = set(service.stored()) - set(before)
    assert sum(service.state.storage.stat(key).size_bytes for key in new) == 0
    assert service.patch(upload_id, 0, b"12345").status_code == 204
    assert service.patch(upload_id, 5, bytes(ROOM // 2), **wrong).status_code == 460
    assert service.patch(upload_id, 5, b"678").status_code == 204
    assert service.offset(upload_id) == 8


def _give(service, num_bytes):
    with service.state.database.write() as session:
        limits.put(session, "default", Limits(max_bytes=stored_bytes.total(session, "default") + num_bytes))
