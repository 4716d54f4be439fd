"""Supervision while the database is away, or holds less than a job has to say."""

import json
import os
import signal
import sqlite3
from contextlib import contextmanager

import pytest
from sqlalchemy import event, select, text

from app.db import bounded
from app.db.models import Job, ModelVersion
from app.db.session import Database
from app.services import attempts, datasets, jobs
from tests import factories, processes
from tests.conftest import wait_until
from tests.factories import files_below
from tests.worker.supervision.benches import COLOURS
from worker.supervision import described, supervisor
from worker.supervision.attempt_trace import AttemptTrace

pytestmark = pytest.mark.server


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
        wait_until(lambda: "cannot be written to for now" in caplog.text, "a failed write")
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
