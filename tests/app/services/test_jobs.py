"""Jobs: whatever happens in whatever order, the states follow the table and the log has neither holes nor doubles."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.db.models import Job, JobEvent
from app.errors import Conflict
from app.services import attempts, datasets, job_requests, jobs, outcomes, queues
from app.states import FINAL, MOVES, JobState
from tests import factories

MAX_ATTEMPTS = 2
OWNER = "me"


def running(session, job):
    return attempts.owned(session, job.id, OWNER)


# Everything that can happen to a job: (session, job) -> anything. What the state does not allow raises.
OPERATIONS = {
    "claim": lambda session, job: attempts.claim(session, ["cpu"], OWNER, 60),
    "cancel": lambda session, job: outcomes.cancel(session, "default", job.id),
    "stop": lambda session, job: job_requests.stop(session, "default", job.id),
    "retry": lambda session, job: job_requests.retry(session, "default", job.id),
    "renew": lambda session, job: attempts.renew(session, job.id, OWNER, 60),
    "record": lambda session, job: attempts.record(session, job.id, OWNER, [{"type": "log", "message": "a"}] * 3, None),
    "lose": lambda session, job: attempts.hand_back(session, running(session, job), "lost", MAX_ATTEMPTS),
    "yield": lambda session, job: attempts.hand_back(
        session, running(session, job), "yields", MAX_ATTEMPTS, counts=False
    ),
    "fail": lambda session, job: outcomes.fail(session, job.id, OWNER, "diverged", "not finite"),
    "succeed": lambda session, job: jobs.move(session, running(session, job), JobState.SUCCEEDED),
}
# What each does to a state; None: it is refused.
NEXT = {
    "claim": {"queued": "running"},
    "cancel": {"queued": "cancelled", "running": "running"},
    "stop": {"running": "running"},
    "retry": {"failed": "queued", "cancelled": "queued"},
    "renew": {"running": "running"},
    "record": {"running": "running"},
    "yield": {"running": "queued"},
    "fail": {"running": "failed"},
    "succeed": {"running": "succeeded"},
}


def expected(operation, before, request, losses):
    """The state afterwards, from the table above and the two rules that look further."""
    if operation == "claim" and before != "queued":
        return before
    if operation in ("lose", "yield") and before == "running":
        if request == "cancel":
            return "cancelled"
        if operation == "lose":
            return "failed" if losses + 1 >= MAX_ATTEMPTS else "queued"
    if operation == "stop" and request == "cancel":
        return None
    return NEXT.get(operation, {}).get(before)


def check(session, job):
    assert (job.finished_at is not None) == (job.state in FINAL)
    assert (job.lease_owner is not None) == (job.state == "running") == (job.lease_expires_at is not None)
    assert job.request is None or job.state == "running" or (job.state, job.request) == ("queued", "stop")
    assert (job.failure_code is not None) == (job.state == "failed")
    events = session.scalars(select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)).all()
    assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
    states = ["queued", *(event.data["state"] for event in events if "state" in event.data)]
    assert all(new in MOVES[JobState(old)] for old, new in pairwise(states))
    assert states[-1] == job.state


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(st.sampled_from(list(OPERATIONS)), max_size=14))
def test_any_sequence_stays_in_the_table(database, operations):
    with database.write() as session:
        # What the last example left would be claimed first.
        for other in session.scalars(select(Job).where(Job.state == JobState.QUEUED)):
            jobs.move(session, other, JobState.CANCELLED)
        job_id = factories.job(session).id
    for operation in operations:
        with database.read() as session:
            before = session.get_one(Job, job_id)
        wanted = expected(operation, before.state, before.request, before.losses)
        try:
            with database.write() as session:
                OPERATIONS[operation](session, session.get_one(Job, job_id))
            assert wanted is not None, f"{operation} of a {before.state} job was not refused"
        except (Conflict, attempts.LeaseLost):
            assert wanted is None, f"{operation} of a {before.state} job was refused"
        with database.read() as session:
            after = session.get_one(Job, job_id)
            assert after.state == (wanted or before.state)
            check(session, after)


def test_concurrent_writers_leave_neither_holes_nor_doubles(database):
    with database.write() as session:
        job_id = factories.job(session).id
        attempts.claim(session, ["cpu"], OWNER, 60)

    def write(number):
        with database.write() as session:
            if number % 2:
                attempts.record(session, job_id, OWNER, [{"type": "log", "message": f"{number}"}] * 3, None)
            else:
                jobs.log(session, session.get_one(Job, job_id), "log", f"{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))
    with database.read() as session:
        events = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)).all()
        last = session.get_one(Job, job_id).last_seq
    assert [event.seq for event in events] == list(range(1, last + 1))
    assert last == 2 + 20 * 3 + 20
    # A batch stays together.
    numbers = [event.message for event in events if event.message.isdigit() and int(event.message) % 2]
    assert all(numbers[start : start + 3] == [numbers[start]] * 3 for start in range(0, len(numbers), 3))


def test_two_retries_at_once_queue_it_once(database, second):
    with database.write() as session:
        job_id = factories.job(session, state="failed").id
    with database.write() as session:
        job_requests.retry(session, "default", job_id)
        other = second(lambda session: job_requests.retry(session, "default", job_id))
    with pytest.raises(Conflict):
        other.result(30)


def test_cancel_that_meets_a_claim_is_passed_on(database, second):
    with database.write() as session:
        job_id = factories.job(session).id
    with database.write() as session:
        attempts.claim(session, ["cpu"], OWNER, 60)
        other = second(lambda session: job_requests.cancel(session, "default", job_id))
    other.result(30)
    with database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.request, job.lease_owner) == ("running", "cancel", OWNER)


def test_dependent_of_a_job_that_fails_meanwhile_is_refused(database, second):
    with database.write() as session:
        needed = factories.job(session).id
        attempts.claim(session, ["cpu"], OWNER, 60)
    new = jobs.NewJob(kind="transfer", model_name="m", depends_on=(needed,))
    with database.write() as session:
        outcomes.fail(session, needed, OWNER, "diverged", "not finite")
        other = second(lambda session: jobs.create(session, "default", new))
    with pytest.raises(Conflict, match="depend"):
        other.result(30)


def test_bells_are_noted_once_for_each_queue(database):
    with database.write() as session:
        factories.job(session)
        factories.job(session)
        factories.worker(session, queues=["gpu"])
        factories.job(session)
        factories.job(session, kind="ingest")
        assert queues.take_bells(session) == {"cpu", "gpu"}
        assert queues.take_bells(session) == set()


def test_a_dataset_beside_the_jobs_own_is_kept_while_the_job_needs_it(database):
    with database.write() as session:
        own, source = factories.dataset(session), factories.dataset(session)
        job = factories.job(session, dataset_id=own.id, datasets={"source": source.id})
        assert {role: row.id for role, row in jobs.datasets(session, job.id).items()} == {"source": source.id}
        with pytest.raises(Conflict, match=job.id):
            datasets.delete(session, "default", source.id)
        outcomes.cancel(session, "default", job.id)
        datasets.delete(session, "default", source.id)
        assert jobs.datasets(session, job.id) == {}
        assert job.dataset_id == own.id
        with pytest.raises(Conflict, match=f"{source.id} deleted"):
            job_requests.retry(session, "default", job.id)
