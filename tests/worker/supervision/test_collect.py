"""Cached features go with the last dataset that has their images, and a worker looks for them by itself."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from app import failpoints
from app.artifact import bundle
from app.db.base import now
from app.db.models import Job, ModelVersion
from app.db.session import Database
from app.errors import Unavailable
from app.inbox import open_inbox
from app.queue import Bell, make_celery
from app.services import attempts, collections, datasets, jobs
from app.services.collector import Collector
from app.storage import FolderStorage, open_storage
from tests import factories
from tests.conftest import wait_until
from tests.worker.backbones.test_features import COLOURS, SPACE, Bench, expected
from worker.backbones import features
from worker.backbones.features import FeatureCache
from worker.supervision import collect, supervisor
from worker.supervision.attempt_trace import AttemptTrace
from worker.supervision.described import describe
from worker.supervision.supervisor import _Attempt
from worker.supervision.worker_context import WorkerContext


@pytest.fixture
def bench(database_kind, request, home, tmp_path):
    """A folder beside SQLite, an object store beside PostgreSQL."""
    url = f"file://{home}/storage" if database_kind == "sqlite" else request.getfixturevalue("s3_url")
    return Bench(tmp_path, open_storage(url, tmp_path / "cache"))


def stored(bench, database, name, files):
    """A dataset as ingestion stores it, with its row."""
    context, index = bench.dataset(name, files)
    with database.write() as session:
        session.add(factories.dataset(session, id=name))
    return context, index


def chunks(bench):
    """Numbers of rows of the chunks there are."""
    found = [name for name in bench.storage.list("features") if name.endswith(".npy")]
    return sorted(len(np.load(bench.storage.fetch(name))) for name in found)


def run(bench, database, **options):
    before = now() + timedelta(hours=1)
    inbox, scratch = open_inbox(bench.storage), bench.folder / "scratch"
    report = Collector(database, bench.storage, inbox, scratch, before, removes=True, **options).run()
    assert list(scratch.glob("*")) == []
    return report


def drop(bench, database, name):
    with database.write() as session:
        waste = datasets.delete(session, "default", name)
    for prefix in waste:
        bench.storage.delete(prefix)


def test_rows_go_with_the_last_dataset_that_has_their_image(bench, database):
    mine, shared = factories.pictures(4, COLOURS), factories.pictures(3, COLOURS, first=100)
    one, index = stored(bench, database, "ds_1", {**mine, **shared})
    wanted, _ = bench.get(one, index, np.arange(len(index)))
    other, of_other = stored(bench, database, "ds_2", {**shared, **factories.pictures(2, COLOURS, first=200)})
    rows = np.arange(len(of_other))
    found, extraction = bench.get(other, of_other, rows)
    assert (extraction.num_cached, extraction.num_extracted) == (6, 4)
    assert chunks(bench) == [4, 14]
    assert run(bench, database).removed.objects == 0

    drop(bench, database, "ds_1")
    report = run(bench, database)
    # The chunk of the first has 6 rows that the second needs too.
    assert chunks(bench) == [4, 6]
    assert (report.rewritten.objects, report.removed.objects) == (2, 0)
    assert report.freed_bytes == 8 * (wanted.shape[1] * wanted.itemsize + 64)
    again, extraction = bench.get(other, of_other, rows)
    assert extraction.num_extracted == 0
    np.testing.assert_array_equal(again, found)
    assert run(bench, database).freed_bytes == 0

    drop(bench, database, "ds_2")
    assert run(bench, database).removed.objects == 4
    assert list(bench.storage.walk()) == []


# What damages the chunk of which some rows go: the end of its object, and what the object then is.
DAMAGE = {
    "digests that end too late": (".keys", lambda data: data + b"0"),
    "rows that end too early": (".npy", lambda data: data[:-1]),
    "rows of nothing": (".npy", lambda data: b""),
    "rows that are none": (".npy", lambda data: b"PK\x03\x04" + data),
    "fewer rows than digests": (".keys", lambda data: data + data[:64]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_chunk_keeps_nothing_else_from_being_collected(bench, database, tmp_path, caplog, what):
    shared = factories.pictures(3, COLOURS, first=100)
    one, index = stored(bench, database, "ds_1", {**factories.pictures(4, COLOURS), **shared})
    bench.get(one, index, np.arange(len(index)))
    stored(bench, database, "ds_2", shared)
    drop(bench, database, "ds_1")
    ending, damage = DAMAGE[what]
    chunk = list(bench.storage.list("features"))
    (key,) = [name for name in chunk if name.endswith(ending)]
    (tmp_path / "damaged").write_bytes(damage(bench.storage.fetch(key).read_bytes()))
    bench.storage.put(key, tmp_path / "damaged")
    # A room behind that of features.
    bench.storage.put(f"studies/default/{factories.new_id('evl')}/a", tmp_path / "damaged")
    size_bytes = (tmp_path / "damaged").stat().st_size

    report = run(bench, database)
    assert (report.is_whole, report.removed.objects, report.rewritten.objects) == (True, 1, 0)
    assert report.freed_bytes == size_bytes
    assert list(bench.storage.list("features")) == chunk
    assert list(bench.storage.list("studies")) == []
    assert f"{chunk[0].rpartition('.')[0]} is left alone" in caplog.text
    assert report.beside["default"]["features"] == sum(bench.storage.stat(name).size_bytes for name in chunk)


def test_a_dataset_whose_index_is_damaged_keeps_nothing_else_from_being_collected(bench, database, tmp_path, caplog):
    one, index = stored(bench, database, "ds_1", factories.pictures(4, COLOURS))
    bench.get(one, index, np.arange(len(index)))
    (tmp_path / "damaged").write_bytes(b"PAR1")
    bench.storage.put("datasets/default/ds_1/index.parquet", tmp_path / "damaged")
    bench.storage.put(f"studies/default/{factories.new_id('evl')}/a", tmp_path / "damaged")
    report = run(bench, database)
    assert (report.is_whole, list(bench.storage.list("studies"))) == (True, [])
    assert chunks(bench) == [8]
    assert "features of project default are left alone" in caplog.text


@pytest.mark.parametrize("first", [0, 300, 600, 900])
def test_rows_that_are_rewritten_once_more_stay(bench, database, monkeypatch, tmp_path, first):
    """There was no room between rows and digests; the next pass lists those rows, and stores both: in either order."""
    shared = factories.pictures(3, COLOURS, first=first + 100)
    one, index = stored(bench, database, "ds_1", {**factories.pictures(4, COLOURS, first=first), **shared})
    bench.get(one, index, np.arange(len(index)))
    other, of_other = stored(bench, database, "ds_2", shared)
    drop(bench, database, "ds_1")
    (tmp_path / "rows_half").write_text("full")
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_folder", str(tmp_path))
        report = run(bench, database)
    assert (report.is_whole, report.freed_bytes, report.rewritten.objects) == (True, 0, 0)
    assert (tmp_path / "rows_half.reached").exists()
    run(bench, database)
    assert chunks(bench) == [6]
    assert bench.get(other, of_other, np.arange(len(of_other)))[1].num_extracted == 0


def test_a_job_whose_cached_features_are_taken_meanwhile_extracts_them_again(bench, database, monkeypatch):
    """Another dataset had these images, and was deleted; the collection looked before this one was there."""
    files = factories.pictures(4, COLOURS)
    context, index = bench.dataset("ds_1", files)
    rows = np.arange(len(index))
    bench.get(context, index, rows[:5])
    load, calls = FeatureCache.load, []

    def taken(cache, keys_N):
        found = load(cache, keys_N)
        calls.append(len(found[0]))
        if len(calls) == 1:
            # Nobody's: there is no row of a dataset.
            assert run(bench, database).removed.objects >= 2
        return found

    monkeypatch.setattr(features.FeatureCache, "load", taken)
    found, extraction = bench.get(context, index, rows)
    np.testing.assert_allclose(found, expected(context, index, rows), atol=1e-5)
    assert extraction.num_extracted == 8
    assert len(calls) == 3


def test_listed_chunk_that_goes_before_it_is_read_is_missing(bench, database, monkeypatch, tmp_path):
    context, index = bench.dataset("ds_1", factories.pictures(4, COLOURS))
    rows = np.arange(len(index))
    bench.get(context, index, rows)
    listed = list(bench.storage.list("features"))
    run(bench, database)
    with monkeypatch.context() as patch:
        patch.setattr(bench.storage, "list", lambda _prefix: iter(listed))
        arrays, chunk_N, _ = FeatureCache(bench.storage, "default", SPACE, tmp_path).load(index.sha256)
    assert arrays == []
    assert (chunk_N < 0).all()


@pytest.fixture
def worker(light):
    """What a worker process works with."""
    database = Database(light.resolved_database_url)
    storage = open_storage(light.resolved_storage_url, light.home_path / "cache")
    yield WorkerContext(
        settings=light, database=database, storage=storage, bell=Bell(make_celery(light)), worker_id="w",
        queues=("cpu",), stopping=threading.Event(), slots=threading.Semaphore(1),
    )  # fmt: skip
    database.dispose()


def test_worker_looks_when_it_is_time(worker, tmp_path):
    (tmp_path / "source").write_bytes(b"x")
    worker.storage.put("studies/default/evl_" + "0" * 20 + "/a", tmp_path / "source")
    assert collect.collect(worker).young.objects == 1
    assert collect.collect(worker) is None
    with worker.database.read() as session:
        assert collections.last(session).report["seen"] == {"objects": 1, "size_bytes": 1}


def ended(worker):
    """An attempt whose runner has said its result, and the job's id."""
    with worker.database.write() as session:
        factories.job(session)
        document = describe(session, attempts.claim(session, ["cpu"], "me", 60.0))
    attempt = _Attempt(worker, document, "me", AttemptTrace(None, document, 0))
    spec = {"files": {bundle.BACKBONE: {"key": bundle.shared_key("ab" * 32)}}}
    attempt._said.end = {"result": {"prefix": document.bundle_prefix, "spec": spec, "metrics": {}, "report": {}}}
    return attempt, document.id


class Away(FolderStorage):
    """A storage that cannot be asked the first few times."""

    num_left = 2

    def stat(self, key):
        if self.num_left:
            self.num_left -= 1
            raise Unavailable("expected the object store to answer; found a connection that was cut")
        return super().stat(key)


def test_a_result_waits_for_storage_that_is_away_for_a_moment(worker, home, monkeypatch):
    """The job has ended well: only that its graph is still there remains to be seen."""
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.01)
    attempt, job_id = ended(replace(worker, storage=Away(home / "storage")))
    attempt._conclude("its process ended", 0)
    with worker.database.read() as session:
        job = session.get_one(Job, job_id)
        # It was asked, at last: and the graph is not there.
        assert (job.state, job.losses, job.failure_code) == ("queued", 1, None)
        assert "found that it was removed" in jobs.events(session, job.id, 0, 100)[0][-1].message


class Hanging(FolderStorage):
    """A storage whose first answer takes as long as the test wants."""

    def __init__(self, root):
        super().__init__(root)
        self.asked, self.go = threading.Event(), threading.Event()

    def stat(self, key):
        self.asked.set()
        self.go.wait(30)
        return super().stat(key)


def test_while_storage_hangs_a_result_holds_the_lease_and_no_lock(worker, home):
    storage = Hanging(home / "storage")
    short = worker.settings.model_copy(update={"lease_seconds": 0.3})
    attempt, job_id = ended(replace(worker, storage=storage, settings=short))
    with ThreadPoolExecutor(1) as pool:
        concluded = pool.submit(attempt._conclude, "its process ended", 0)
        assert storage.asked.wait(30)
        try:
            with worker.database.write() as session:
                job = jobs.locked(session, "default", job_id)
                first = job.lease_expires_at
            wait_until(lambda: lease(worker, job_id) != first, "a renewed lease", 10)
        finally:
            storage.go.set()
        concluded.result(30)
    with worker.database.read() as session:
        assert session.get_one(Job, job_id).state == "queued"


def lease(worker, job_id):
    with worker.database.read() as session:
        return session.get_one(Job, job_id).lease_expires_at


def test_job_whose_graph_was_removed_before_it_published_is_tried_again(worker):
    """Its runner found the graph in storage and did not store it; no version named it, and a collection took it."""
    attempt, job_id = ended(worker)
    attempt._write_outcome("its process ended", 0, 0.0)
    with worker.database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.losses) == ("queued", 1)
        assert "found that it was removed" in jobs.events(session, job.id, 0, 100)[0][-1].message
        assert session.query(ModelVersion).all() == []
