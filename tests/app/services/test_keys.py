"""Keys as rows: what is kept of them, whose they are, how they end."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from app.db.base import now
from app.db.models import Project
from app.errors import BadRequest, NotFound
from app.services import keys
from tests import factories


def make(session, project="default", name="ci", scopes=("read",), expires_at=None):
    return keys.create(session, project, name, scopes, expires_at)


def test_a_key_is_found_by_its_secret_which_is_kept_nowhere(database):
    with database.write() as session:
        made = make(session, scopes=("predict", "read"), expires_at=now() + timedelta(days=1))
    assert keys.SHAPE.fullmatch(made.secret)
    with database.read() as session:
        row, rate = keys.find(session, keys.digest(made.secret))
        assert (row.id, row.scopes, row.project_id, rate) == (made.row.id, ["read", "predict"], "default", None)
        assert keys.find(session, keys.digest(made.secret[:-1] + "x")) is None
        stored = [str(value) for value in session.execute(text("SELECT * FROM api_key")).one()]
    assert made.row.prefix == made.secret[: keys.SHOWN]
    hidden = made.secret[keys.SHOWN + 1 :]
    assert len(bytes.fromhex(hidden)) >= 32
    assert not any(hidden in value or made.secret in value for value in stored)


def test_secrets_and_prefixes_differ(database):
    with database.write() as session:
        made = [make(session) for _ in range(20)]
    assert len({one.secret for one in made}) == len({one.row.prefix for one in made}) == 20


def test_a_project_sees_and_ends_its_own_keys_alone(database):
    with database.write() as session:
        other = factories.project(session, "other")
        # Of one millisecond, ids are in any order.
        ours, theirs = sorted(make(session).row.id for _ in range(3)), make(session, other).row.id
    with database.write() as session:
        rows, more = keys.page(session, "default", 2, None)
        assert ([row.id for row in rows], more) == ([ours[2], ours[1]], True)
        rows, more = keys.page(session, "default", 2, ours[1])
        assert ([row.id for row in rows], more) == ([ours[0]], False)
        for wrong in (theirs, "key_none"):
            with pytest.raises(NotFound):
                keys.revoke(session, "default", wrong)
        first = keys.revoke(session, "default", ours[0]).revoked_at
        assert keys.revoke(session, "default", ours[0]).revoked_at == first
    with database.read() as session:
        assert [row.revoked_at is None for row in keys.page(session, "other", 2, None)[0]] == [True]


def test_use_is_noted_once_a_minute(database):
    with database.write() as session:
        row = make(session).row
        assert not keys.is_touched(row)
        keys.touch(session, row.id)
        session.refresh(row)
        noted = row.last_used_at
        assert keys.is_touched(row)
        keys.touch(session, row.id)
        session.refresh(row)
        assert row.last_used_at == noted
        row.last_used_at = noted - timedelta(minutes=2)
        session.flush()
        assert not keys.is_touched(row)
        keys.touch(session, row.id)
        session.refresh(row)
        assert row.last_used_at >= noted


def test_only_a_key_that_holds_counts_as_an_admins(database):
    with database.write() as session:
        assert not keys.has_admin(session, "default")
        make(session)
        make(session, scopes=("admin",), expires_at=now() - timedelta(seconds=1))
        make(session, factories.project(session, "other"), scopes=("admin",))
        assert not keys.has_admin(session, "default")
        good = make(session, scopes=("admin",))
        assert keys.has_admin(session, "default")
        keys.revoke(session, "default", good.row.id)
        session.flush()
        assert not keys.has_admin(session, "default")


def test_projects_are_made_by_their_name(database):
    with database.write() as session:
        keys.open_project(session, "default")
        keys.open_project(session, "team-a.1")
        keys.open_project(session, "team-a.1")
        for wrong in ("", "Team", "a/b", "..", "-a", "a" * 41, "ä", "a b", "a\n"):
            with pytest.raises(BadRequest):
                keys.open_project(session, wrong)
    with database.read() as session:
        assert {row.id for row in session.query(Project)} == {"default", "team-a.1"}


def test_of_two_that_make_the_first_key_of_a_new_project_one_does(database, second):
    def first_key(session):
        keys.open_project(session, "team")
        if keys.has_admin(session, "team"):
            return None
        return make(session, "team", scopes=keys.SCOPES)

    with database.write() as session:
        assert first_key(session) is not None
        other = second(first_key)
    assert other.result(30) is None
    with database.read() as session:
        assert session.get_one(Project, "team").max_jobs is None
