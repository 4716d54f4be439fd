"""A process that is told to end, as in a rolling update, keeps what it was being sent."""

import asyncio
import time
from contextlib import ExitStack

import httpx
import pytest

from app.api.under_way import UnderWay
from app.db.session import Database
from app.db.uploads import Upload
from app.services.receiving import Receiver
from tests import listening
from tests.app.uploads.conftest import DATA, Service
from tests.conftest import wait_until


@pytest.mark.parametrize("breaks", [False, True], ids=["the end breaks it off", "it broke off before"])
def test_what_came_before_the_end_of_the_process_is_kept(light, monkeypatch, breaks):
    keep, kept = Receiver.keep, []

    def slow(receiver):
        # As with an object store, which is sent the last part only now; longer than requests are given to end.
        time.sleep(4)
        keep(receiver)
        kept.append(receiver)

    monkeypatch.setattr(Receiver, "keep", slow)
    written, write = [], Receiver.write
    monkeypatch.setattr(Receiver, "write", lambda receiver, data: (written.append(len(data)), write(receiver, data))[1])
    with ExitStack() as connections, ExitStack() as opened:
        url, state = opened.enter_context(listening.application(light))
        http = opened.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=60))
        service = Service(url, state, http)
        upload_id = service.begin()
        connection = connections.enter_context(service.begin_patch(upload_id, 0, len(DATA)))
        connection.sendall(DATA[: 2**20])
        wait_until(lambda: sum(written) == 2**20, "the bytes that were sent")
        if breaks:
            connection.close()
        opened.close()
        # The process would be gone by now.
        assert len(kept) == 1
    database = Database(light.resolved_database_url)
    with database.read() as session:
        row = session.get_one(Upload, upload_id)
    database.dispose()
    assert row.received_bytes == 2**20
    # Whoever goes on elsewhere need not wait for a lease.
    assert row.writer is None


def test_the_end_of_a_process_waits_for_no_storage_that_is_away():
    under_way = UnderWay()

    async def end():
        with under_way.one():
            await under_way.wait(0.1)
        # None is left: no time passes.
        async with asyncio.timeout(5):
            await under_way.wait(60)

    asyncio.run(end())
