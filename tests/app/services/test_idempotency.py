"""Keys of POSTs that may come twice."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db.base import now
from app.db.models import IdempotencyKey
from app.errors import Conflict, Unprocessable
from app.services import idempotency
from app.services.idempotency import Answer
from tests import factories

ROUTE = "POST /jobs"
ANSWER = Answer(b'{"id": 1}', "/api/v1/jobs/1")


def first(session, key="k", print_="p", project="default"):
    assert idempotency.begin(session, project, ROUTE, key, print_) is None
    idempotency.keep(session, project, ROUTE, key, ANSWER)


def again(session, key="k", print_="p", project="default", route=ROUTE):
    return idempotency.begin(session, project, route, key, print_)


def test_answer_is_kept_for_its_project_and_route(database):
    with database.write() as session:
        factories.project(session, "other")
        first(session)
    with database.write() as session:
        assert again(session) == ANSWER
        assert again(session, project="other") is None
        assert again(session, route="POST /datasets") is None
        assert again(session, key="l") is None
        with pytest.raises(Unprocessable) as caught:
            again(session, print_="q")
        assert caught.value.code == "idempotency_mismatch"


def test_without_a_key_nothing_is_kept(database):
    with database.write() as session:
        assert again(session, key=None) is None
        idempotency.keep(session, "default", ROUTE, None, ANSWER)
        assert session.scalars(select(IdempotencyKey)).all() == []


def test_work_that_fails_gives_its_key_back(database):
    def fails():
        with database.write() as session:
            first(session)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with database.write() as session:
        assert again(session, print_="q") is None


def test_same_key_at_once_is_answered_once(database, second):
    with database.write() as session:
        first(session)
        other = second(again)
    if database.engine.dialect.name == "sqlite":
        # The second transaction began after the first had ended.
        assert other.result(30) == ANSWER
    else:
        with pytest.raises(Conflict) as caught:
            other.result(30)
        assert caught.value.code == "idempotency_in_flight"
    with database.write() as session:
        assert again(session) == ANSWER


@pytest.mark.parametrize("hours", [23, 25])
def test_keys_are_kept_for_a_day(database, hours):
    with database.write() as session:
        first(session)
        session.get_one(IdempotencyKey, ("default", ROUTE, "k")).created_at = now() - timedelta(hours=hours)
    with database.write() as session:
        assert again(session) == (ANSWER if hours == 23 else None)


def outdate(session, key, project="default"):
    session.get_one(IdempotencyKey, (project, ROUTE, key)).created_at = now() - timedelta(hours=25)


def test_no_key_waits_for_another(database, second):
    with database.write() as session:
        factories.project(session, "other")
        first(session, "old")
        outdate(session, "old")
    with database.write() as session:
        first(session)
        other = second(lambda session: first(session, project="other"))
        if database.engine.dialect.name == "postgresql":
            assert other.done()
    other.result(30)


def test_keys_go_when_their_day_is_over(database):
    with database.write() as session:
        first(session, "old")
        first(session, "new")
        outdate(session, "old")
    with database.write() as session:
        idempotency.expire(session)
        assert [row.key for row in session.scalars(select(IdempotencyKey))] == ["new"]


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_length_of_keys(database, key):
    with database.write() as session:
        with pytest.raises(Unprocessable):
            again(session, key=key)
        assert again(session, key="k" * 255) is None


def test_fingerprints_tell_payloads_apart():
    prints = [
        idempotency.fingerprint({"a": 1}, None), idempotency.fingerprint({"a": 1}, "x"),
        idempotency.fingerprint({"a": 2}, None), idempotency.fingerprint({"a": "1"}, None),
    ]  # fmt: skip
    assert len(set(prints)) == 4
    assert idempotency.fingerprint({"a": 1, "b": 2}) == idempotency.fingerprint({"b": 2, "a": 1})
