"""Supervision of a real runner process. Where a test needs one in mid-work, it is frozen (SIGSTOP)."""

import json
import os
import signal
import sqlite3
import threading
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import event, select, text

from app.db import bounded
from app.db.models import Dataset, Job, ModelVersion, Report
from app.db.session import Database
from app.queue import Bell, make_celery
from app.services import attempts, datasets, job_requests, jobs, models, transfers, uploads
from app.settings import Settings
from tests import factories, processes
from tests.conftest import wait_until
from tests.factories import files_below
from worker.supervision import described, supervisor
from worker.supervision.attempt_trace import AttemptTrace
from worker.supervision.worker_context import WorkerContext

pytestmark = pytest.mark.server


class Bench:
    """One worker's context, and the jobs that it is given."""

    def __init__(self, settings, database, storage):
        self.settings, self.database, self.storage = settings, database, storage
        self.home = settings.home_path
        self.context = WorkerContext(
            settings=settings, database=database, storage=storage, bell=Bell(make_celery(settings)), worker_id="w1",
            queues=("cpu",), stopping=threading.Event(), slots=threading.Semaphore(2),
        )  # fmt: skip

    def upload(self, files, name="colours"):
        """A dataset that waits for its ingestion; (dataset, job)."""
        with self.database.write() as session:
            dataset_id = factories.new_id("ds")
            archive = self.home / f"{dataset_id}.zip"
            archive.write_bytes(files if isinstance(files, bytes) else factories.pack(files))
            key = uploads.incoming("default", dataset_id)
            self.storage.put(key, archive)
            archive.unlink()
            row = datasets.create(session, "default", dataset_id, datasets.NewDataset(name, key, "a.zip"))
            return row.id, row.job_id

    def transfer(self, dataset_id, model="colours", **changes):
        with self.database.write() as session:
            wish = transfers.Wish(
                dataset_id=dataset_id, backbone=factories.BACKBONE, recipe={"method": "linear_probe"}, model=model,
                seed=0, report="fast", depends_on=(), allow_label_change=False,
            )  # fmt: skip
            return transfers.create(session, "default", wish, False).id

    def run(self):
        supervisor.run_next(self.context)

    def start(self):
        """Supervises in a thread, as the worker does."""
        thread = threading.Thread(target=self.run)
        thread.start()
        return thread

    def job(self, job_id):
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def dataset(self, dataset_id):
        with self.database.read() as session:
            return session.get_one(Dataset, dataset_id)

    def log(self, job_id):
        with self.database.read() as session:
            return [event.message for event in jobs.events(session, job_id, 0, 1000)[0]]

    def freeze(self, job_id, but=0):
        """The job's runner, stopped in mid-work."""
        found = processes.runner(self.home, job_id, but)
        os.kill(found.pid, signal.SIGSTOP)
        return found


@pytest.fixture
def open_bench(storage, home, tmp_path, monkeypatch):
    """Makes the worker of a home, with its settings in the environment that its runners read."""
    opened = []
    stack = ExitStack()

    def open_on(database_url):
        settings = {"prepared": factories.prepared(tmp_path / "prepared"), "database_url": database_url}
        for name, value in processes.environment(home, **settings).items():
            monkeypatch.setenv(name, value)
        home.mkdir(exist_ok=True)
        opened.append(Database(database_url))
        stack.enter_context(processes.runners_of_this_process())
        return Bench(Settings(), opened[0], storage)

    with stack:
        yield open_on
    opened[0].dispose()
    assert processes.named(home, "worker.runner") == []


@pytest.fixture
def bench(open_bench, light):
    return open_bench(light.database_url)


COLOURS = {name: factories.COLOURS[name] for name in ("red", "blue")}


def change(bench, **settings):
    """The same worker with other settings."""
    return Bench(bench.settings.model_copy(update=settings), bench.database, bench.storage)


def test_from_an_upload_to_a_model(bench, home):
    dataset_id, _ = bench.upload(factories.pictures(12))
    bench.run()
    found = bench.dataset(dataset_id)
    assert (found.state, found.num_samples, found.failure_message) == ("ready", 36, None)
    assert {item["name"] for item in found.classes} == {"red", "green", "blue"}
    job_id = bench.transfer(dataset_id)
    bench.run()
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.losses) == ("succeeded", 1, 0), bench.log(job_id)
    assert job.metrics["test_accuracy"] > 0.5
    with bench.database.read() as session:
        version = models.resolve(session, "default", "colours", None, None)
    assert list(bench.storage.list(version.prefix)) == sorted(
        f"{version.prefix}/{name}" for name in [*version.spec["files"], "spec.json"] if name != "backbone.onnx"
    )
    assert files_below(home / "storage" / "incoming") == []
    assert list((home / "scratch").iterdir()) == []


def test_killed_runner_is_handed_back_at_once_and_tried_again(bench):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    first = bench.freeze(job_id)
    os.kill(first.pid, signal.SIGKILL)
    thread.join(60)
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.losses) == ("succeeded", 2, 1)
    log = bench.log(job_id)
    assert any("killed by signal 9" in line for line in log)
    assert [line for line in log if line.startswith("attempt")] == ["attempt 1 started", "attempt 2 started"]


def test_attempts_run_out(bench, home):
    dataset_id, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    last = 0
    for _ in range(bench.settings.max_attempts):
        found = bench.freeze(job_id, last)
        last = found.pid
        os.kill(last, signal.SIGKILL)
    thread.join(60)
    job = bench.job(job_id)
    assert (job.state, job.failure_code, job.attempt) == ("failed", "worker_lost", 3)
    assert bench.dataset(dataset_id).state == "invalid"
    assert files_below(home / "storage") == []


def test_lost_lease_drops_the_work(bench, home):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    found = bench.freeze(job_id)
    with bench.database.write() as session:
        attempts.hand_back(session, session.get_one(Job, job_id), "its worker fell silent", 3)
        assert attempts.claim(session, ["cpu"], "another", 60).id == job_id
    before = bench.log(job_id)
    thread.join(60)
    assert not thread.is_alive()
    assert not processes.alive(found)
    job = bench.job(job_id)
    assert (job.state, job.lease_owner, job.attempt) == ("running", "another", 2)
    assert bench.log(job_id) == before
    # What the other worker reads is still there.
    assert len(files_below(home / "storage" / "incoming")) == 1


def test_cancel_kills(bench, home):
    dataset_id, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    found = bench.freeze(job_id)
    with bench.database.write() as session:
        job_requests.cancel(session, "default", job_id)
    thread.join(60)
    assert not processes.alive(found)
    assert bench.job(job_id).state == "cancelled"
    assert bench.dataset(dataset_id).state == "invalid"
    assert files_below(home / "storage") == []


def test_worker_that_shuts_down_hands_back_without_counting(bench, home):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    found = bench.freeze(job_id)
    bench.context.stopping.set()
    thread.join(60)
    assert not processes.alive(found)
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.losses) == ("queued", 1, 0)
    assert "the worker shuts down" in bench.log(job_id)[-1]
    assert len(files_below(home / "broker" / "messages")) == 1
    change(bench).run()
    assert bench.job(job_id).state == "succeeded"


def test_worker_that_shuts_down_starts_nothing(bench):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    bench.context.stopping.set()
    bench.run()
    assert bench.job(job_id).state == "queued"


def test_time_limit(bench, home):
    dataset_id, job_id = bench.upload(factories.pictures(3, COLOURS))
    slow = change(bench, job_timeout_seconds=1.0)
    thread = slow.start()
    found = slow.freeze(job_id)
    thread.join(60)
    assert not processes.alive(found)
    job = slow.job(job_id)
    assert (job.state, job.failure_code) == ("failed", "timed_out")
    assert "GRAFT_JOB_TIMEOUT_SECONDS" in job.failure_message
    assert slow.dataset(dataset_id).state == "invalid"
    assert files_below(home / "storage") == []


def test_lease_is_kept_while_the_runner_works(bench):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    short = change(bench, lease_seconds=0.6)
    thread = short.start()
    found = short.freeze(job_id)
    first = short.job(job_id).lease_expires_at
    wait_until(lambda: short.job(job_id).lease_expires_at > first, "a renewed lease")
    os.kill(found.pid, signal.SIGCONT)
    thread.join(60)
    assert short.job(job_id).state == "succeeded"


@contextmanager
def frozen_connections(other):
    """All that a worker has to its database, while it asks nothing: they take what it says, and never answer."""
    idle = text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND state = 'idle'"
    )
    stopped = set()

    def stop():
        with other.read() as session:
            stopped.update(session.scalars(idle))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with other.read() as session:
            if stopped and stopped <= set(session.scalars(idle)):
                return True
        let_go()
        return False

    def let_go():
        while stopped:
            os.kill(stopped.pop(), signal.SIGCONT)

    wait_until(stop, "connections that stand still and hold nothing")
    try:
        yield
    finally:
        let_go()


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_lease_is_kept_though_a_connection_leads_nowhere_any_more(open_bench, database_url, monkeypatch):
    monkeypatch.setattr(bounded, "PING_SECONDS", 0.3)
    bench, other = open_bench(database_url), Database(database_url)
    _, job_id = bench.upload(factories.pictures(3, COLOURS))

    def expires_at():
        with other.read() as session:
            return session.get_one(Job, job_id).lease_expires_at

    thread = bench.start()
    found = bench.freeze(job_id)
    with frozen_connections(other):
        first = expires_at()
        wait_until(lambda: expires_at() > first, "a renewed lease")
        os.kill(found.pid, signal.SIGCONT)
        thread.join(60)
        with other.read() as session:
            job = session.get_one(Job, job_id)
        assert (job.state, job.attempt) == ("succeeded", 1)
    other.dispose()


def test_lease_is_kept_while_the_runner_starts(bench, monkeypatch):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    short = change(bench, lease_seconds=0.6)
    go = threading.Event()

    class Late(supervisor.RunnerProcess):
        def __init__(self, document):
            go.wait(30)
            super().__init__(document)

    monkeypatch.setattr(supervisor, "RunnerProcess", Late)
    thread = short.start()
    wait_until(lambda: short.job(job_id).state == "running", "a claim")
    first = short.job(job_id).lease_expires_at
    wait_until(lambda: short.job(job_id).lease_expires_at > first, "a renewed lease")
    go.set()
    thread.join(60)
    assert (short.job(job_id).state, short.job(job_id).attempt) == ("succeeded", 1)


def test_labels_that_changed_meanwhile_fail_the_job_with_the_reason(bench):
    one, _ = bench.upload(factories.pictures(6, COLOURS))
    other, _ = bench.upload(factories.pictures(6, {"red": COLOURS["red"], "green": factories.COLOURS["green"]}))
    bench.run()
    first, second = bench.transfer(one), bench.transfer(other)
    bench.run()
    done, failed = sorted((bench.job(job_id) for job_id in (first, second)), key=lambda job: job.state != "succeeded")
    assert (done.state, failed.state, failed.failure_code) == ("succeeded", "failed", "internal"), bench.log(failed.id)
    assert "allow_label_change" in failed.failure_message
    assert failed.attempt == 1
    assert list(bench.storage.list(f"bundles/default/{failed.id}")) == []
    assert list(bench.storage.list(f"bundles/default/{done.id}")) != []


def test_bundle_of_a_killed_attempt_is_taken_away(bench, tmp_path):
    dataset_id, _ = bench.upload(factories.pictures(6, COLOURS))
    bench.run()
    job_id = bench.transfer(dataset_id)
    thread = bench.start()
    found = bench.freeze(job_id)
    # As if it had been killed after it had stored its bundle.
    (tmp_path / "spec.json").write_text("{}")
    bench.storage.put(f"bundles/default/{job_id}/attempt-1/spec.json", tmp_path / "spec.json")
    os.kill(found.pid, signal.SIGKILL)
    thread.join(60)
    assert (bench.job(job_id).state, bench.job(job_id).attempt) == ("succeeded", 2)
    assert {key.split("/")[3] for key in bench.storage.list(f"bundles/default/{job_id}")} == {"attempt-2"}


def test_cost_is_that_of_all_attempts(bench):
    dataset_id, _ = bench.upload(factories.pictures(6, COLOURS))
    bench.run()
    job_id = bench.transfer(dataset_id)
    thread = bench.start()
    os.kill(bench.freeze(job_id).pid, signal.SIGKILL)
    thread.join(60)
    with bench.database.read() as session:
        first, lost, second, _ = [one.at for one in jobs.events(session, job_id, 0, 1000)[0] if one.type == "state"][1:]
        cost = session.get_one(Report, job_id).document["cost"]
    earlier = (lost - first).total_seconds()
    assert second >= lost
    assert earlier > 0
    assert (cost["attempts"], cost["earlier_seconds"]) == (2, pytest.approx(earlier, abs=0.001))
    assert cost["total_seconds"] > earlier + cost["transfer_seconds"]


def test_two_slots_work_at_the_same_time(bench):
    ids = [bench.upload(factories.pictures(3, COLOURS))[1] for _ in range(2)]
    threads = [bench.start() for _ in ids]
    frozen = [bench.freeze(job_id) for job_id in ids]
    assert [bench.job(job_id).state for job_id in ids] == ["running", "running"]
    for found in frozen:
        os.kill(found.pid, signal.SIGCONT)
    for thread in threads:
        thread.join(60)
    assert [bench.job(job_id).state for job_id in ids] == ["succeeded", "succeeded"]


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_text_that_postgresql_does_not_hold_fails_the_job_at_once(open_bench, database_url, home):
    bench = open_bench(database_url)
    lines = [json.dumps({"file": f"{number}.png", "label": "a\0b" if number % 2 else "c"}) for number in range(6)]
    files = {f"{number}.png": factories.png(seed=number) for number in range(6)}
    dataset_id, job_id = bench.upload({**files, "labels.jsonl": "\n".join(lines).encode()})
    bench.run()
    job = bench.job(job_id)
    assert (job.state, job.attempt) == ("failed", 1), bench.log(job_id)
    assert "NUL" in job.failure_message
    assert bench.dataset(dataset_id).state == "invalid"
    assert files_below(home / "storage") == []


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_a_finding_about_text_that_no_database_holds_is_stored(open_bench, database_url):
    bench = open_bench(database_url)
    rows = [{"file": f"{n}.png", "label": "ab"[n % 2], "odd\ud800\0": 1} for n in range(12)]
    files = {f"{number}.png": factories.png(seed=number) for number in range(12)}
    dataset_id, job_id = bench.upload({**files, "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    bench.run()
    assert (bench.job(job_id).state, bench.job(job_id).attempt) == ("succeeded", 1), bench.log(job_id)
    with bench.database.read() as session:
        found, _ = datasets.problems(session, "default", dataset_id, 100, 0)
    assert "odd\\ud800\\x00" in next(one.message for one in found if one.code == "column_ignored")


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_a_result_that_no_database_holds_fails_the_job_at_once(open_bench, database_url):
    """Another attempt would be told the same."""
    bench = open_bench(database_url)
    dataset_id, job_id = bench.upload(factories.pictures(3, COLOURS))
    finding = {"severity": "warning", "code": "column_ignored", "path": "\ud800", "message": "", "fix": ""}
    result = {
        "failure": None, "task": "classification", "num_samples": 1, "classes": [], "splits": {}, "digest": "",
        "size_bytes": 1, "problems": [finding],
    }  # fmt: skip
    with bench.database.write() as session:
        job = attempts.claim(session, ("cpu",), "w1/1", 60.0)
        assert job.id == job_id
        document = described.describe(session, job)
        supervisor._Attempt(bench.context, document, "w1/1", AttemptTrace(None, document, 0))._publish(
            session, job, result
        )
    job = bench.job(job_id)
    assert (job.state, job.failure_code) == ("failed", "internal")
    assert "half a surrogate pair" in job.failure_message
    assert bench.dataset(dataset_id).state == "invalid"


@contextmanager
def locked(bench):
    """A database that refuses every write meanwhile, without the usual patience of five seconds."""
    bench.database.dispose()
    event.listen(bench.database.engine, "connect", lambda made, _: made.execute("PRAGMA busy_timeout=50"))
    holder = sqlite3.connect(bench.home / "graft.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield holder
    holder.execute("COMMIT")
    holder.close()


def test_job_outlives_a_database_that_is_away(bench, caplog):
    dataset_id, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    found = bench.freeze(job_id)
    with locked(bench):
        wait_until(lambda: "goes on without the database" in caplog.text, "a failed write")
        os.kill(found.pid, signal.SIGCONT)
        wait_until(lambda: not processes.alive(found), "the runner's end")
        assert thread.is_alive()
    thread.join(60)
    job = bench.job(job_id)
    assert (job.state, job.attempt, job.losses) == ("succeeded", 1, 0), bench.log(job_id)
    assert bench.dataset(dataset_id).num_samples == 6
    with bench.database.read() as session:
        numbers = [entry.seq for entry in jobs.events(session, job_id, 0, 1000)[0]]
    assert numbers == list(range(1, job.last_seq + 1))


def test_cancel_that_was_accepted_before_the_result_is_written_wins(bench, home):
    dataset_id, _ = bench.upload(factories.pictures(6, COLOURS))
    bench.run()
    job_id = bench.transfer(dataset_id)
    thread = bench.start()
    found = bench.freeze(job_id)
    with locked(bench) as holder:
        os.kill(found.pid, signal.SIGCONT)
        # It has said its result, and nobody could write it yet.
        wait_until(lambda: not processes.alive(found), "the runner's end")
        holder.execute("UPDATE job SET request = 'cancel' WHERE id = ?", (job_id,))
    thread.join(60)
    assert bench.job(job_id).state == "cancelled"
    with bench.database.read() as session:
        assert session.scalars(select(ModelVersion)).all() == []
    assert files_below(home / "storage" / "bundles") == []
    assert files_below(home / "storage" / "checkpoints") == []


def test_outcome_that_cannot_be_written_is_left_to_the_sweep(bench, monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "CONCLUDE_SECONDS", 0.0)
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    thread = bench.start()
    found = bench.freeze(job_id)
    with locked(bench):
        os.kill(found.pid, signal.SIGCONT)
        thread.join(60)
    assert not thread.is_alive()
    assert "another attempt follows" in caplog.text
    assert bench.job(job_id).state == "running"


def test_claim_without_a_database_is_tried_again_later(bench):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    with locked(bench):
        bench.run()
    assert bench.job(job_id).state == "queued"
    bench.run()
    assert bench.job(job_id).state == "succeeded"


def test_bundle_that_was_published_after_all_is_kept(bench):
    with bench.database.write() as session:
        job = factories.job(session)
        document = described.describe(session, job)
    trace = AttemptTrace(None, document, 0)
    attempt = supervisor._Attempt(bench.context, document, "w1/1", trace)
    assert attempt._unpublished() == [document.bundle_prefix]
    # By another attempt: this one's files are still nobody's.
    shared = document.checkpoint_prefix
    for number, left in ((document.attempt + 1, [document.bundle_prefix, shared]), (document.attempt, [shared])):
        with bench.database.write() as session:
            job = session.get_one(Job, document.id)
            job.state, job.attempt = "succeeded", number
        assert attempt._unpublished() == left


@pytest.mark.parametrize("patience", [0.1, 600.0])
def test_grace_of_a_worker_that_shuts_down(bench, patience):
    _, job_id = bench.upload(factories.pictures(3, COLOURS))
    worker = change(bench, stop_grace_seconds=patience)
    thread = worker.start()
    found = worker.freeze(job_id)
    worker.context.stopping.set()
    if patience > 1:
        os.kill(found.pid, signal.SIGCONT)
    thread.join(60)
    assert not thread.is_alive()
    assert ("the worker shuts down" in bench.log(job_id)[-1]) == (patience < 1)
