"""What a process remembers of keys, and for how long."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import event, update

from app.api import keyring
from app.api.keyring import LOCAL, Keyring
from app.db.base import now
from app.db.keys import ApiKey
from app.db.session import Database
from app.errors import Unauthorized, Unavailable
from app.services import keys
from tests.app.api.callers import bearer


@pytest.fixture
def two(database):
    """Two processes' memories of one database, and a key."""
    with database.write() as session:
        made = keys.create(session, "default", "test", ["read"], None)
    return Keyring(database, True), Keyring(database, True), made


def test_requests_are_answered_from_memory(database, two, monkeypatch):
    monkeypatch.setattr(keyring, "FRESH_SECONDS", 3600.0)
    monkeypatch.setattr(keyring, "KEPT_SECONDS", 3600.0)
    ring, _, made = two
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    async def ask():
        header = bearer(made)["Authorization"]
        first = await asyncio.gather(*(ring.caller(header) for _ in range(50)))
        more = [await ring.caller(header) for _ in range(200)]
        await ring.close()
        return {*first, *more}

    (caller,) = asyncio.run(ask())
    assert (caller.project, caller.scopes, caller.key_id) == ("default", {"read"}, made.row.id)
    assert len([one for one in statements if one.startswith("SELECT")]) == 1
    assert len([one for one in statements if one.startswith("UPDATE")]) == 1


def test_a_revoked_key_ends_at_once_here_and_soon_elsewhere(database, two, monkeypatch):
    monkeypatch.setattr(keyring, "FRESH_SECONDS", 0.1)
    monkeypatch.setattr(keyring, "KEPT_SECONDS", 0.3)
    here, elsewhere, made = two
    header = bearer(made)["Authorization"]

    async def ask():
        for ring in (here, elsewhere):
            await ring.caller(header)
        with database.write() as session:
            keys.revoke(session, "default", made.row.id)
        here.forget(made.row.id)
        assert not await here.holds(header)
        await asyncio.sleep(0.3)
        with pytest.raises(Unauthorized) as caught:
            await elsewhere.caller(header)
        assert caught.value.code == "key_revoked"
        await elsewhere.close()

    asyncio.run(ask())


def test_a_look_that_was_under_way_when_a_key_was_revoked_does_not_count(database, two):
    """It may have read the row before, and would remember a key that its own process knows to have ended."""
    ring, _, made = two
    read = ring._read

    def read_and_revoke(digest):
        found = read(digest)
        ring._read = read
        with database.write() as session:
            keys.revoke(session, "default", made.row.id)
        ring.forget(made.row.id)
        return found

    ring._read = read_and_revoke
    assert asyncio.run(ring.holds(bearer(made)["Authorization"])) is False


def test_a_key_in_use_is_looked_up_while_it_is_believed(database, two, monkeypatch):
    """Nobody waits once a key is known, and what has changed shows before it must."""
    monkeypatch.setattr(keyring, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(keyring, "KEPT_SECONDS", 3600.0)
    ring, _, made = two
    header = bearer(made)["Authorization"]

    async def ask():
        await ring.caller(header)
        with database.write() as session:
            session.execute(update(ApiKey).values(scopes=["admin"]))
        assert (await ring.caller(header)).scopes == {"read"}
        await ring.close()
        return await ring.caller(header)

    assert asyncio.run(ask()).scopes == {"admin"}


def test_a_key_that_expires_meanwhile_ends_without_a_look(database, two, monkeypatch):
    ring, _, made = two
    with database.write() as session:
        session.execute(update(ApiKey).values(expires_at=now() + timedelta(hours=1)))

    async def ask():
        assert await ring.holds(bearer(made)["Authorization"])
        later = now() + timedelta(hours=1)
        monkeypatch.setattr(keyring, "now", lambda: later)
        assert not await ring.holds(bearer(made)["Authorization"])
        await ring.close()

    asyncio.run(ask())


def test_a_database_that_is_away_is_no_reason_to_let_anybody_in(tmp_path):
    ring = Keyring(Database(f"sqlite:///{tmp_path}/none/graft.db"), True)
    with pytest.raises(Unavailable):
        asyncio.run(ring.caller("Bearer graft_00000000_" + "0" * 64))
    assert asyncio.run(Keyring(Database(f"sqlite:///{tmp_path}/none/graft.db"), False).caller("")) == LOCAL
