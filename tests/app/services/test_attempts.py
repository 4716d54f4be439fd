"""Claims and the fence, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db.base import now
from app.db.models import Dataset, Job, JobEvent, ModelVersion, Report
from app.services import attempts, job_requests, jobs, outcomes, queues
from app.services.attempts import LeaseLost
from tests import factories


def claim(database, owner="me", queues=("cpu",), lease=60):
    with database.write() as session:
        job = attempts.claim(session, queues, owner, lease)
        return job.id if job else None


def test_claim_writes_lease_and_attempt(database):
    with database.write() as session:
        job_id = factories.job(session).id
    before = now()
    assert claim(database, lease=30) == job_id
    assert claim(database) is None
    with database.read() as session:
        job = session.get_one(Job, job_id)
        event = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()[-1]
    assert (job.state, job.attempt, job.lease_owner, job.losses) == ("running", 1, "me", 0)
    assert timedelta(seconds=29) < job.lease_expires_at - before < timedelta(seconds=60)
    assert job.started_at >= before
    assert (event.message, event.data) == ("attempt 1 started", {"state": "running", "attempt": 1})
    assert job.progress == {"fraction": 0.0, "stage": "start", "eta_seconds": None}


def test_earlier_attempts_are_timed_by_their_log(database):
    """What waits between two of them is of none."""
    with database.write() as session:
        job = factories.job(session)
        job_id = job.id
    begins, ends, begun = (10.0, 40.0, 100.0), (13.0, 41.5), []
    start = now()
    for number in range(3):
        assert claim(database) == job_id
        with database.write() as session:
            job = session.get_one(Job, job_id)
            begun.append(attempts.earlier_seconds(session, job))
            if number < 2:
                attempts.hand_back(session, job, "killed", 9)
                session.flush()
            events = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()
            moments = [0.0, *(at for pair in zip(begins, ends, strict=False) for at in pair), begins[-1]]
            for event, seconds in zip([one for one in events if one.type == "state"], moments, strict=False):
                event.at = start + timedelta(seconds=seconds)
    assert begun == [0.0, pytest.approx(3.0), pytest.approx(4.5)]


def test_priority_goes_before_age(database):
    with database.write() as session:
        old, new, urgent = (factories.job(session, priority=priority).id for priority in (0, 0, 10))
    ages = sorted([old, new])
    assert [claim(database) for _ in range(4)] == [urgent, *ages, None]


def test_only_own_queues(database):
    with database.write() as session:
        factories.worker(session, queues=["gpu"])
        on_gpu = factories.job(session).id
        on_cpu = factories.job(session, kind="ingest").id
    assert claim(database, queues=("cpu",)) == on_cpu
    assert claim(database, queues=("cpu",)) is None
    assert claim(database, queues=("cpu", "gpu")) == on_gpu


def test_dependencies_come_first(database):
    with database.write() as session:
        one, two = factories.job(session).id, factories.job(session).id
        last = factories.job(session, depends_on=(one, two), priority=10).id
    assert {claim(database), claim(database)} == {one, two}
    assert claim(database) is None
    for job_id, following in ((one, None), (two, last)):
        with database.write() as session:
            jobs.move(session, session.get_one(Job, job_id), "succeeded")
        assert claim(database) == following


def test_what_waits_for_a_job_that_fails_is_cancelled_once_by_whatever_way_it_waits(database):
    with database.write() as session:
        first = factories.job(session).id
        second = factories.job(session, depends_on=(first,)).id
        waiting = [second, factories.job(session, depends_on=(first, second)).id]
        # Deeper than any stack.
        for _ in range(1200):
            waiting.append(factories.job(session, depends_on=(waiting[-1],)).id)
    assert claim(database) == first
    with database.write() as session:
        attempts.fail(session, session.get_one(Job, first), "diverged", "not finite")
    with database.read() as session:
        assert set(session.scalars(select(Job.state).where(Job.id.in_(waiting)))) == {"cancelled"}
        told = select(JobEvent.job_id).where(JobEvent.message.startswith("cancelled: "))
        assert sorted(session.scalars(told)) == sorted(waiting)


def test_concurrent_claimers_never_get_the_same_job(database):
    with database.write() as session:
        for _ in range(40):
            factories.job(session)

    def take(owner):
        taken = []
        while job_id := claim(database, owner):
            taken.append(job_id)
        return [(job_id, owner) for job_id in taken]

    with ThreadPoolExecutor(6) as threads:
        found = [pair for pairs in threads.map(take, [f"w{number}" for number in range(6)]) for pair in pairs]
    assert len(found) == len({job_id for job_id, _ in found}) == 40
    with database.read() as session:
        rows = session.scalars(select(Job)).all()
    assert {(job.id, job.lease_owner) for job in rows} == set(found)
    assert {job.attempt for job in rows} == {1}


RESULT = {"prefix": "bundles/a", "spec": factories.SPEC, "metrics": {"test_accuracy": 1.0}, "report": {"verdict": None}}
LATE = {
    "renew": lambda session, job_id: attempts.renew(session, job_id, "late", 60),
    "record": lambda session, job_id: attempts.record(
        session, job_id, "late", [{"type": "log", "message": "late"}], {"fraction": 0.9, "stage": "x", "eta_seconds": 1}
    ),
    "owned": lambda session, job_id: attempts.owned(session, job_id, "late"),
    "succeed": lambda session, job_id: outcomes.succeed(session, job_id, "late", RESULT),
    "fail": lambda session, job_id: outcomes.fail(session, job_id, "late", "diverged", "late"),
}


def snapshot(database):
    with database.read() as session:
        tables = (Job, JobEvent, ModelVersion, Report, Dataset)
        return [session.execute(select(table.__table__)).all() for table in tables]


@pytest.mark.parametrize("action", LATE)
@pytest.mark.parametrize("what", ["taken", "queued", "ended"])
def test_late_owner_writes_nothing(database, action, what):
    with database.write() as session:
        job_id = factories.job(session).id
    assert claim(database, "late") == job_id
    with database.write() as session:
        job = session.get_one(Job, job_id)
        if what == "ended":
            jobs.move(session, job, "cancelled")
        else:
            attempts.hand_back(session, job, "silent", 3)
    if what == "taken":
        assert claim(database, "new") == job_id
    before = snapshot(database)
    with pytest.raises(LeaseLost, match="late"), database.write() as session:
        LATE[action](session, job_id)
    assert snapshot(database) == before


def test_renew_extends_and_tells_the_request(database):
    with database.write() as session:
        job_id = factories.job(session).id
    claim(database, lease=1)
    with database.write() as session:
        first = session.get_one(Job, job_id).lease_expires_at
        assert attempts.renew(session, job_id, "me", 100) is None
        job_requests.stop(session, "default", job_id)
    with database.write() as session:
        assert attempts.renew(session, job_id, "me", 100) == "stop"
        assert session.get_one(Job, job_id).lease_expires_at > first + timedelta(seconds=50)


def test_record_keeps_levels_data_and_progress(database):
    with database.write() as session:
        job_id = factories.job(session).id
    claim(database)
    progress = {"fraction": 0.5, "stage": "features", "eta_seconds": 2.0}
    entries = [
        {"type": "log", "message": "careful", "level": "warning"},
        {"type": "metric", "message": "loss", "data": {"loss": 0.1}},
    ]
    with database.write() as session:
        attempts.record(session, job_id, "me", entries, progress)
    with database.write() as session:
        attempts.record(session, job_id, "me", [], None)
    with database.read() as session:
        assert session.get_one(Job, job_id).progress == progress
        events, _ = jobs.events(session, job_id, 2, 10)
    assert [(event.level, event.type, event.message, event.data) for event in events] == [
        ("warning", "log", "careful", {}), ("info", "metric", "loss", {"loss": 0.1, "attempt": 1})
    ]  # fmt: skip


def test_lost_attempts_run_out(database):
    with database.write() as session:
        job_id = factories.job(session).id
        waiting = factories.job(session, depends_on=(job_id,)).id
    for attempt in (1, 2, 3):
        assert claim(database) == job_id
        with database.write() as session:
            job = session.get_one(Job, job_id)
            assert attempts.hand_back(session, job, "killed by signal 9", 3) == (attempt < 3)
            assert queues.take_bells(session) == ({"cpu"} if attempt < 3 else set())
    with database.read() as session:
        job, dependent = session.get_one(Job, job_id), session.get_one(Job, waiting)
    assert (job.state, job.failure_code, job.attempt, job.losses) == ("failed", "worker_lost", 3, 3)
    assert "killed by signal 9" in job.failure_message
    assert dependent.state == "cancelled"


def test_handing_back_on_purpose_does_not_count(database):
    with database.write() as session:
        job_id = factories.job(session).id
    for attempt in range(1, 7):
        assert claim(database) == job_id
        with database.write() as session:
            job = session.get_one(Job, job_id)
            assert attempts.hand_back(session, job, "the worker shuts down", 3, counts=False)
            assert (job.state, job.attempt, job.losses) == ("queued", attempt, 0)


def test_handing_back_a_cancelled_job_ends_it(database):
    with database.write() as session:
        job_id = factories.job(session).id
    claim(database)
    with database.write() as session:
        job_requests.cancel(session, "default", job_id)
        assert not attempts.hand_back(session, session.get_one(Job, job_id), "gone", 3)
    with database.read() as session:
        assert session.get_one(Job, job_id).state == "cancelled"


def test_stop_outlives_the_attempt_that_it_was_asked_of(database):
    with database.write() as session:
        job_id = factories.job(session).id
    claim(database)
    with database.write() as session:
        job_requests.stop(session, "default", job_id)
        attempts.hand_back(session, session.get_one(Job, job_id), "gone", 3)
    claim(database)
    with database.write() as session:
        assert attempts.renew(session, job_id, "me", 60) == "stop"
        attempts.fail(session, session.get_one(Job, job_id), "diverged", "not finite")
        job_requests.retry(session, "default", job_id)
    claim(database)
    with database.write() as session:
        assert attempts.renew(session, job_id, "me", 60) is None


def test_expired_are_the_silent_ones(database):
    with database.write() as session:
        silent, alive = factories.job(session).id, factories.job(session).id
        factories.job(session)
    for owner in ("a", "b"):
        claim(database, owner)
    with database.write() as session:
        for job_id, seconds in ((silent, -1), (alive, 60)):
            session.get_one(Job, job_id).lease_expires_at = now() + timedelta(seconds=seconds)
    with database.write() as session:
        assert [job.id for job in attempts.expired(session)] == [silent]
        assert attempts.waiting_queues(session) == {"cpu"}


def test_one_sweeper_at_a_time_takes_a_silent_job_back(database, second):
    with database.write() as session:
        job_id = factories.job(session).id
    claim(database, lease=-1)

    def sweep(session):
        return [attempts.hand_back(session, job, "silent", 3) for job in attempts.expired(session)]

    with database.write() as session:
        assert sweep(session) == [True]
        other = second(sweep)
    assert other.result(30) == []
    with database.read() as session:
        assert session.get_one(Job, job_id).losses == 1
