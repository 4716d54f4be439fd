"""Moments and keys, on both databases."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from app.db.base import new_id, now
from app.db.models import Job, Project
from app.db.session import Database
from app.services import logs, models
from tests import factories


def test_moments_come_back_aware_and_equal(database):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    east = moment.astimezone(timezone(timedelta(hours=9)))
    with database.write() as session:
        for name, at in (("utc", moment), ("east", east)):
            session.add(Project(id=name, created_at=at))
    with database.read() as session:
        found = [session.get_one(Project, name).created_at for name in ("utc", "east")]
    assert found == [moment, moment]
    assert {at.utcoffset() for at in found} == {timedelta(0)}


def test_naive_moments_are_refused(database):
    with pytest.raises(StatementError, match="aware"), database.write() as session:
        session.add(Project(id="a", created_at=datetime(2026, 1, 1)))


def test_moments_compare_in_the_database(database):
    with database.write() as session:
        session.add(Project(id="old", created_at=now() - timedelta(hours=1)))
        session.add(Project(id="new", created_at=now() + timedelta(hours=1)))
    with database.read() as session:
        query = select(Project.id).where(Project.created_at < now(), Project.id != "default")
        assert session.scalars(query).all() == ["old"]


def test_references_are_enforced(database):
    with pytest.raises(IntegrityError), database.write() as session:
        factories.job(session, dataset_id="ds_0")


def test_documents_keep_their_values(database):
    document = {"a": [1, 2.5, None, True, {"b": "\u00e4\u2603"}], "": {}}
    with database.write() as session:
        job_id = factories.job(session, inputs=document).id
    with database.read() as session:
        assert session.get_one(Job, job_id).inputs == document


def test_sqlite_is_set_up_for_two_processes(light, request):
    from app.db.session import Database

    database = Database(light.resolved_database_url)
    with database.read() as session:
        pragmas = [session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "foreign_keys", "busy_timeout")]
    database.dispose()
    assert pragmas == ["wal", 1, 5000]


def test_ids_grow_within_one_process_and_do_not_repeat():
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: [new_id("job") for _ in range(2000)], range(4)))
    assert all(made == sorted(made) for made in several)
    assert len({name for made in several for name in made}) == 8000
    assert {len(name) for name in several[0]} == {len("job_") + 20}


def test_more_ids_are_looked_up_than_one_statement_takes(database):
    """A process that has answered for tens of thousands of versions asks which of them there still are."""
    with database.write() as session:
        model = factories.model(session, num_versions=2)
        wanted = {row.id for row in models.versions(session, [model.id])[model.id]}
    many = [f"ver_{number:020}" for number in range(70_000)]
    assert models.published(database, [*many, *wanted]) == wanted
    assert logs.Ledger(database, None).wanted(many) == set()


@pytest.mark.server
def test_connections_to_a_server_that_has_gone_are_given_up(postgres):
    """What the driver was told, since no test pulls a cable; a word of the operator's URL counts for more."""
    for url, seconds in ((postgres.url("postgres"), "10"), (f"{postgres.url('postgres')}&connect_timeout=3", "3")):
        found = Database(url)
        with found.read() as session:
            told = session.connection().connection.driver_connection.info.get_parameters()
        found.dispose()
        assert told["connect_timeout"] == seconds
        assert told["tcp_user_timeout"] == "30000"
        assert (told["keepalives_idle"], told["keepalives_interval"], told["keepalives_count"]) == ("15", "5", "3")


def test_a_forked_process_draws_numbers_of_its_own():
    """Else two processes would give the same ids away whenever they make one in the same millisecond."""
    code = """
import os
from app.db.base import _numbers, new_id
new_id("a")
before = set(_numbers._drawn)
child = os.fork()
if not child:
    new_id("a")
    os._exit(len(before & set(_numbers._drawn)))
assert len(before) > 100 and set(_numbers._drawn) == before
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
