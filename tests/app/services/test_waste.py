"""What is given up is deleted, now or later, whatever is cut short in between; what is wanted stays."""

from datetime import timedelta

import pytest

from app.db.base import now
from app.db.session import Database
from app.db.waste import Waste
from app.errors import Unavailable
from app.services import waste
from app.storage import FolderStorage

KEYS = ("checkpoints/default/job_1/a.json", "checkpoints/default/job_1/b.json", "checkpoints/default/job_10/a.json")


@pytest.fixture
def stored(storage, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for key in KEYS:
        storage.put(key, source)
    return storage


def rows(database):
    with database.read() as session:
        return sorted(row.prefix for row in session.query(Waste))


def make_due(database):
    with database.write() as session:
        session.query(Waste).update({Waste.due_at: now() - timedelta(seconds=1)})


def test_what_was_noted_and_not_cleared_is_swept(database, stored):
    with database.write() as session:
        waste.note(session, ["checkpoints/default/job_1"])
    # Whoever noted it comes first.
    assert waste.sweep(database, stored) == 0
    make_due(database)
    assert waste.sweep(database, stored) == 1
    assert list(stored.list("checkpoints")) == [KEYS[2]]
    assert (rows(database), waste.sweep(database, stored)) == ([], 0)


class Away(FolderStorage):
    """A storage that cannot be reached."""

    def delete(self, prefix):
        raise Unavailable("expected the object store to answer; found nothing; try again")


def test_what_cannot_be_deleted_now_is_deleted_later(database, stored, home):
    with database.write() as session:
        waste.note(session, ["checkpoints/default/job_1"])
    waste.clear(database, Away(home / "storage"), ["checkpoints/default/job_1"])
    assert rows(database) == ["checkpoints/default/job_1"]
    make_due(database)
    assert waste.sweep(database, stored) == 1
    assert list(stored.list("checkpoints")) == [KEYS[2]]


def test_what_was_reserved_goes_unless_it_is_kept(database, stored):
    for name in ("job_1", "job_10"):
        waste.reserve(database, f"checkpoints/default/{name}", 0)
    with database.write() as session:
        waste.keep(session, "checkpoints/default/job_1")
    make_due(database)
    assert waste.sweep(database, stored) == 1
    assert list(stored.list("checkpoints")) == list(KEYS[:2])
    with database.write() as session, pytest.raises(Unavailable, match="send it again"):
        waste.keep(session, "checkpoints/default/job_10")


def test_a_job_that_is_done_again_keeps_its_checkpoints(database, stored):
    with database.write() as session:
        waste.note(session, ["checkpoints/default/job_1", "checkpoints/default/job_10", KEYS[0]])
    with database.write() as session:
        waste.forget(session, "checkpoints/default/job_1")
    assert rows(database) == ["checkpoints/default/job_10"]


def test_what_is_given_back_goes_unless_a_commit_has_kept_it_whose_answer_was_lost(database, stored):
    prefix = "checkpoints/default/job_1"
    waste.reserve(database, prefix, 0)
    waste.give_back(database, stored, prefix)
    assert rows(database) == []
    assert list(stored.list("checkpoints")) == [KEYS[2]]
    other = "checkpoints/default/job_10"
    waste.reserve(database, other, 0)
    with database.write() as session:
        waste.keep(session, other)
    waste.give_back(database, stored, other)
    assert list(stored.list("checkpoints")) == [KEYS[2]]


def test_what_a_sweep_has_claimed_cannot_be_kept(database, stored):
    waste.reserve(database, "checkpoints/default/job_1", 0)
    with database.write() as session:
        session.query(Waste).update({Waste.due_at: now() + waste.CLAIMED})
    with database.write() as session, pytest.raises(Unavailable):
        waste.keep(session, "checkpoints/default/job_1")


def test_what_a_sweep_has_claimed_cannot_be_reserved_anew(database, stored):
    """It is being deleted: what is stored there now would go with it, wanted or not."""
    prefix = "checkpoints/default/job_1"
    waste.reserve(database, prefix, 0)
    make_due(database)

    class Renewed(FolderStorage):
        """Whoever had reserved it comes back while a sweep deletes it."""

        def delete(self, prefix):
            with pytest.raises(Unavailable, match="send it again"):
                waste.reserve(database, prefix, 1)
            super().delete(prefix)

    assert waste.sweep(database, Renewed(stored.root)) == 1
    waste.reserve(database, prefix, 1)
    assert rows(database) == [prefix]


@pytest.mark.parametrize("before", ["nothing", "noted"])
def test_two_may_give_up_the_same_at_once(database, second, before):
    """An attempt that comes back after its successor, a dataset that is deleted while its last job is tidied."""
    prefixes = ["checkpoints/default/job_1", "checkpoints/default/job_2"]
    if before == "noted":
        with database.write() as session:
            waste.note(session, prefixes)
    with database.write() as session:
        waste.note(session, prefixes)
        other = second(lambda session: waste.note(session, prefixes[::-1]))
    other.result(30)
    assert rows(database) == prefixes


def test_what_is_cleared_may_be_given_up_again_meanwhile(database, second):
    prefix = "checkpoints/default/job_1"
    with database.write() as session:
        waste.note(session, [prefix])
    with database.write() as session:
        session.query(Waste).delete()
        other = second(lambda session: waste.note(session, [prefix]))
    other.result(30)
    assert rows(database) == [prefix]


def test_while_the_database_is_away_nothing_is_given_back(stored, tmp_path):
    away = Database(f"sqlite:///{tmp_path / 'none.db'}")
    waste.give_back(away, stored, "checkpoints/default/job_1")
    assert len(list(stored.list("checkpoints"))) == 3
    away.dispose()
