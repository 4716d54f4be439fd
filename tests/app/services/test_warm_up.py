"""What aliases mean is in memory before a process says that it is ready, and soon after an alias moves."""

import threading
from concurrent.futures import Future
from contextlib import closing

import pytest
from sqlalchemy import select

from app.artifact import sample
from app.db.models import ModelVersion
from app.db.session import Database
from app.errors import NotFound
from app.services import aliases, models
from app.services.aliases import Target
from app.services.predictions import Lookup, Opened, Wanted
from app.services.warm_up import WarmUp
from app.serving.engine import Engine
from app.serving.statistics import Statistics
from app.storage import FolderStorage
from tests import factories
from tests.app import sample_factories
from tests.conftest import wait_until


@pytest.fixture
def parts(light, tmp_path):
    """A database with a model of four versions, of which the fourth is not what its sample says; lookup and engine."""
    database, storage = Database(light.resolved_database_url), FolderStorage(tmp_path / "storage")
    with database.write() as session:
        of = factories.model(session, "tiny", 0)
        for number in range(1, 5):
            made = sample_factories.make(*factories.head_weights(number, 3), off=number // 4)
            factories.published(session, storage, tmp_path, of, number, parts={"sample": sample.pack(made)})
    with closing(Engine(1 << 30, 1)) as engine:
        yield database, Lookup(database, Opened(storage)), engine
    database.dispose()


def point(database, alias, version, **beside):
    with database.write() as session:
        aliases.point(session, "default", "tiny", alias, Target(version, **beside))


def tried(lookup, engine):
    found = [lookup.find("default", Wanted("tiny", number)).model for number in range(1, 5)]
    return [engine.trials.passed(model) for model in found]


def test_versions_that_aliases_mean_are_loaded_with_what_is_tried_beside_them(parts):
    database, lookup, engine = parts
    point(database, "production", 1, canary=3, share=0.5)
    warm_up = WarmUp(database, lookup, engine, Statistics(), period_seconds=0.01)
    with closing(warm_up):
        assert not warm_up.is_under_way
        warm_up.start()
        wait_until(lambda: not warm_up.is_under_way, "the first look")
        assert tried(lookup, engine) == [True, False, True, False]
        point(database, "production", 2)
        wait_until(lambda: tried(lookup, engine)[1], "the version that the alias has moved to")


def test_one_that_fails_its_trial_keeps_nothing_from_being_ready(parts):
    database, lookup, engine = parts
    point(database, "a", 4)
    point(database, "b", 1)
    with closing(WarmUp(database, lookup, engine, Statistics())) as warm_up:
        warm_up.start()
        wait_until(lambda: not warm_up.is_under_way, "the first look")
    assert tried(lookup, engine) == [True, False, False, False]
    assert "off" in engine.trials.failure(lookup.find("default", Wanted("tiny", 4)).model)


def test_one_that_cannot_be_read_keeps_nothing_from_being_ready(parts):
    database, lookup, engine = parts
    point(database, "a", 2)
    point(database, "b", 1)

    def tell(spec):
        with database.write() as session:
            row = session.scalars(select(ModelVersion).where(ModelVersion.version == 2)).one()
            told, row.spec = row.spec, spec
        return told

    spec = tell({})
    with closing(WarmUp(database, lookup, engine, Statistics(), period_seconds=0.01)) as warm_up:
        warm_up.start()
        wait_until(lambda: not warm_up.is_under_way, "the first look")
        assert engine.trials.passed(lookup.find("default", Wanted("tiny", 1)).model)
        tell(spec)
        wait_until(lambda: tried(lookup, engine)[1], "the version that can be read again")


def test_what_was_unloaded_stays_out(parts):
    database, lookup, engine = parts
    point(database, "production", 1)
    with closing(WarmUp(database, lookup, engine, Statistics(), period_seconds=0.01)) as warm_up:
        warm_up.start()
        wait_until(lambda: not warm_up.is_under_way, "the first look")
        engine.pool.clear()
        point(database, "other", 2)
        wait_until(lambda: tried(lookup, engine)[1], "the other alias")
        # One backbone and one head: those of the other one.
        assert engine.pool.stats().num_entries == 2


def test_what_was_deleted_leaves_the_memory(parts):
    database, lookup, engine = parts
    for number in (1, 3):
        engine.load(lookup.find("default", Wanted("tiny", number)).model)
    assert engine.pool.stats().num_entries == 3
    kept, dropped = (lookup.find("default", Wanted("tiny", number)).version_id for number in (1, 3))
    statistics = Statistics()
    for version_id in (kept, dropped):
        statistics.watch(version_id, Future()).cancel()
    statistics.compared((kept, dropped), "same", 1)
    with closing(WarmUp(database, lookup, engine, statistics, period_seconds=0.01, drop_seconds=0.01)) as warm_up:
        warm_up.start()
        with database.write() as session:
            gone = models.version(session, "default", "tiny", 3).id
            models.delete_version(session, "default", "tiny", 3)
        # The backbone is the other one's, too.
        wait_until(lambda: engine.pool.stats().num_entries == 2, "the head of the deleted version to leave")
        wait_until(lambda: statistics.version_ids() == {kept}, "what was counted of it to leave")
    assert (gone, statistics.total().compared) == (dropped, {})
    assert gone not in lookup.opened_ids()
    with pytest.raises(NotFound):
        lookup.find("default", Wanted("tiny", 3))


def test_it_waits_for_a_database_that_is_not_there_yet(parts, light, tmp_path, home):
    _, lookup, engine = parts
    late = Database(f"sqlite:///{tmp_path / 'late.db'}")
    warm_up = WarmUp(late, lookup, engine, Statistics(), period_seconds=0.01)
    with closing(warm_up):
        warm_up.start()
        threading.Event().wait(0.1)
        assert warm_up.is_under_way
    late.dispose()
