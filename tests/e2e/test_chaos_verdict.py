"""The harness of `make chaos` sees what it looks for: each thing that can be lost or doubled is planted once."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from app.db.base import now
from app.db.models import Job, JobEvent, Model
from app.db.waste import Waste
from app.services import attempts
from benchmarks.chaos import crowd, lab, orphans, verdict
from benchmarks.chaos.lab import Done
from benchmarks.chaos.servers import Servers
from benchmarks.chaos.stack import Stack
from tests import factories
from tests.conftest import wait_until
from tests.receivers import receiving

METRICS = {"metrics": {"test_accuracy": 0.9}, "weights": "aa"}


@pytest.fixture
def stack(tmp_path):
    """One without processes; what a scenario would have made is written by hand."""
    with receiving() as receiver, orphans.adopting() as strangers:
        stack = Stack("local", tmp_path, Servers(), receiver, strangers)
        (stack.home / "broker" / "messages").mkdir(parents=True)
        stack.open()
        yield stack
        stack.stop()


@pytest.fixture
def done(stack):
    """A transfer that has succeeded at its first attempt, with its version."""
    with stack.database.write() as session:
        job = factories.job(session, state="succeeded", attempt=1)
        factories.model(session)
    stack.asked.add(job.id)
    return Done([job.id], dict(METRICS), {"colours": 1})


def judge(stack, done):
    return verdict.judge(stack, done, Done(result=METRICS))


def change(stack, done, **values):
    with stack.database.write() as session:
        job = session.get_one(Job, done.jobs[0])
        for name, value in values.items():
            setattr(job, name, value)


def event(stack, done, **fields):
    """One more entry of the job's log, as whoever has no lease would write it."""
    with stack.database.write() as session:
        job = session.get_one(Job, done.jobs[0])
        job.last_seq += 1
        owner = {"job_id": job.id, "project_id": job.project_id, "seq": job.last_seq, "level": "info"}
        session.add(JobEvent(**{**owner, "type": "state", "message": "x", **fields}))


def lose_event(stack, done):
    with stack.database.write() as session:
        session.delete(session.get_one(JobEvent, (done.jobs[0], 2)))


def second_version(stack, done):
    with stack.database.write() as session:
        factories.version(session, session.query(Model).one(), 2)


def second_job(stack, done):
    with stack.database.write() as session:
        factories.job(session)


PLANTED = {
    "it failed": (lambda *it: change(*it, state="failed"), "expected succeeded; found failed"),
    "it ended twice": (lambda *it: event(*it, data={"state": "succeeded"}), "expected one end"),
    "it began again unseen": (lambda *it: event(*it, data={"state": "running"}), "expected a start for each"),
    "an attempt was not told": (lambda *it: change(*it, attempt=2), "expected a start for each of 2 attempts"),
    "a hole in the events": (lose_event, "expected events 1 to 3; found [1, 3]"),
    "an event of a number too high": (lambda *it: change(*it, last_seq=2), "expected events 1 to 2; found [1, 2, 3]"),
    "a version twice": (second_version, "expected versions 1 to 1; found [1, 2]"),
    "a job twice": (second_job, "expected no job that nobody has asked for"),
}


def test_nothing_is_wrong_with_what_is_whole(stack, done):
    assert judge(stack, done) == []


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_lost_or_doubled_is_seen(stack, done, what):
    plant, expected = PLANTED[what]
    plant(stack, done)
    found = judge(stack, done)
    assert any(expected in line for line in found), found


def test_other_figures_and_missing_versions_are_seen(stack, done):
    for other in ({"metrics": {"test_accuracy": 0.9 + 1e-16 * 2}, "weights": "aa"}, {**METRICS, "weights": "ab"}):
        assert "expected the result of an undisturbed run" in judge(stack, replace(done, result=other))[0]
    assert "expected versions 1 to 2; found [1]" in judge(stack, replace(done, models={"colours": 2}))[0]
    assert "expected a job; found none" in judge(stack, replace(done, jobs=["job_none"]))[0]


def test_jobs_that_ended_otherwise_are_told_in_a_short_table(stack):
    """Of many, those alone, by what there is to look for."""
    with stack.database.write() as session:
        jobs = [factories.job(session, state="succeeded", attempt=1) for _ in range(5)]
        poison, lost, twice = jobs[0], jobs[1], jobs[2]
        poison.state, poison.failure_code = "failed", "worker_lost"
    made = [(number, job.id) for number, job in enumerate([twice, *jobs[2:]], 1)]
    lost.state, lost.attempt, lost.failure_code = "failed", 3, "worker_lost"
    first, head, *rows = crowd.judge_ends(jobs, made, poison.id)
    assert first.endswith("found 2 others:")
    assert head.split() == ["id", "state", "attempts", "failure", "versions"]
    assert [row.split() for row in rows] == [
        [lost.id, "failed", "3", "worker_lost", "0"],
        [twice.id, "succeeded", "1", "-", "2"],
    ]
    lost.state, lost.attempt, lost.failure_code = "succeeded", 1, None
    whole = [(number, job.id) for number, job in enumerate(jobs[1:], 1)]
    assert crowd.judge_ends(jobs, whole, poison.id) == []
    assert crowd.judge_ends(jobs, [(7, job_id) if number == 2 else (number, job_id) for number, job_id in whole],
                            poison.id) == ["expected versions 1 to 4, each once; found other of 2, 7"]  # fmt: skip
    (stranger,) = crowd.judge_ends(jobs, [*whole, (5, "job_other")], poison.id)
    assert stranger.endswith("found some of job_other")


def test_jobs_that_do_not_end_are_told_in_a_short_table(stack):
    with stack.database.write() as session:
        ids = [factories.job(session, state=state).id for state in ("succeeded", "queued")]
    with pytest.raises(AssertionError) as raised:
        lab.finish(stack, ids, 0.1)
    (_, _, row) = str(raised.value).splitlines()
    assert row.split() == [ids[1], "queued", "0", "-"]


def test_results_are_compared_leaf_by_leaf():
    wanted, found = {"metrics": {"a": 1, "b": 2}, "weights": "aa"}, {"metrics": {"a": 1, "b": 3}, "more": 1}
    assert lab.difference(wanted, found) == [
        "metrics.b: expected 2; found 3", "weights: expected aa; found None", "more: expected None; found 1"
    ]  # fmt: skip
    assert lab.difference(wanted, wanted) == []


def test_files_that_nothing_needs_are_seen(stack, done):
    source = stack.folder / "source"
    source.write_bytes(b"x")
    kept = "bundles/default/job_lost/attempt-1/head.onnx"
    for key in (kept, "elsewhere/x", "features/default/a/b.npy"):
        stack.storage.put(key, source)
    working, message = stack.settings.scratch / "job_x", stack.home / "broker" / "messages" / "1.msg"
    working.mkdir(parents=True)
    message.write_bytes(b"x")
    (stack.temporary / "half").write_bytes(b"x")
    with stack.database.write() as session:
        session.add(Waste(prefix="bundles/x", project_id=factories.PROJECT, due_at=now()))
    found = verdict.leftovers(stack)
    for place in (kept, "elsewhere/x", "features/default/a/b.npy", working, message.name, "half", "bundles/x"):
        assert any(line.endswith(str(place)) for line in found), (place, found)


def test_processes_that_nobody_waits_for_are_seen(stack, done):
    """Without an environment, as decoders are, and in a session of their own."""
    orphan = "import time; time.sleep(600)"
    parent = (
        "import subprocess, sys; "
        f"command, more = [sys.executable, '-c', '{orphan}'], dict(env={{}}, start_new_session=True, stdout=-3); "
        "print(subprocess.Popen(command, **more).pid)"
    )
    told = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=True)
    line = f"a process is left: {int(told.stdout)}"
    assert line in verdict.leftovers(stack)
    (process,) = stack.orphans()
    process.kill()
    wait_until(lambda: line not in verdict.leftovers(stack), "the end of the process")
    os.waitpid(process.pid, 0)


STEPS = [(0, 1, False), (3, 1, True), (3, 2, False), (2, 0, False), (4, 0, True)]


@pytest.mark.parametrize(("num_again", "losses", "is_wrong"), STEPS)
def test_steps_that_are_computed_again_are_counted(stack, done, num_again, losses, is_wrong):
    assert verdict.judge_steps(stack, done.jobs[0]) != []
    with stack.database.write() as session:
        job = session.get_one(Job, done.jobs[0])
        job.lease_owner, job.losses = "me", losses
        numbers = [*range(10), *range(num_again)]
        entries = [{"type": "metric", "message": f"epoch {number}: loss 1"} for number in numbers]
        attempts.record(session, job.id, "me", entries, None)
    assert bool(verdict.judge_steps(stack, done.jobs[0])) is is_wrong


# Ten parts of four steps each; an attempt is lost, and the next goes on from a step, or from nothing.
GONE_ON_FROM = [(8, 12, False), (12, 12, False), (14, 12, False), (2, 12, True), (0, 12, True)]


@pytest.mark.parametrize(("step", "last", "is_wrong"), GONE_ON_FROM)
def test_steps_between_two_parts_are_counted_where_a_job_numbers_them(stack, done, step, last, is_wrong):
    with stack.database.write() as session:
        job = session.get_one(Job, done.jobs[0])
        job.lease_owner, job.losses = "me", 1
        entries = [_part(number) for number in range(4, last + 1, 4)]
        if step:
            entries.append({"type": "log", "message": f"resumed from step {step}", "data": {"step": step}})
        entries += [_part(number) for number in range(4, 41, 4) if number > step]
        attempts.record(session, job.id, "me", entries, None)
    assert verdict.steps(stack, done.jobs[0]) == pytest.approx(1 + (max(0, last - step) + 4) / 40)
    assert bool(verdict.judge_steps(stack, done.jobs[0])) is is_wrong


def test_an_attempt_that_goes_on_from_the_end_of_a_part_tells_of_it_and_computes_nothing(stack, done):
    with stack.database.write() as session:
        job = session.get_one(Job, done.jobs[0])
        job.lease_owner, job.losses = "me", 0
        resumed = {"type": "log", "message": "resumed from step 12", "data": {"step": 12}}
        entries = [_part(4), _part(8), resumed, *(_part(number) for number in range(12, 41, 4))]
        attempts.record(session, job.id, "me", entries, None)
    assert verdict.steps(stack, done.jobs[0]) == 1


def _part(end):
    return {"type": "metric", "message": f"epoch {end // 4}: loss 1", "data": {"step": end}}
