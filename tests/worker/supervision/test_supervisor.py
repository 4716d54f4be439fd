"""Supervision of a real runner process. Where a test needs one in mid-work, it is frozen (SIGSTOP)."""

import os
import signal
import threading

import pytest

from app.db.models import Job, Report
from app.services import attempts, job_requests, jobs, models
from tests import factories, processes
from tests.conftest import wait_until
from tests.factories import files_below
from tests.worker.supervision.benches import COLOURS, change
from worker.supervision import described, supervisor
from worker.supervision.attempt_trace import AttemptTrace

pytestmark = pytest.mark.server


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
