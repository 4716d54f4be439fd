"""Time on GPUs, as heartbeats count it; no GPU is needed for that."""

from datetime import timedelta

import pytest

from app.db.base import now
from app.db.gpu import GpuUse
from app.db.models import Job
from app.errors import TooMany
from app.services import attempts, gpu_use, jobs, limits, outcomes
from app.services.limits import Limits
from tests import factories

NEW = jobs.NewJob(kind="transfer", model_name="m")


@pytest.fixture
def running(database):
    """Ids of two jobs of `default` that run on a GPU, and one of another project."""
    with database.write() as session:
        factories.worker(session, queues=["cpu", "gpu"])
        other = factories.project(session, "other")
        ids = [factories.job(session).id, factories.job(session).id, factories.job(session, project_id=other).id]
        for _ in ids:
            attempts.claim(session, ["gpu"], "me", 60)
    return ids


def test_heartbeats_count_and_a_lost_attempt_keeps_what_they_showed(database, running):
    for job_id, seconds in ((running[0], 10.0), (running[0], 0.5), (running[1], 4.0), (running[2], 99.0)):
        with database.write() as session:
            attempts.renew(session, job_id, "me", 60, worked_seconds=seconds)
    with database.write() as session:
        attempts.hand_back(session, session.get_one(Job, running[0]), "killed by signal 9", 3)
        assert gpu_use.of_all(session) == {"default": 14.5, "other": 99.0}
    with pytest.raises(attempts.LeaseLost), database.write() as session:
        attempts.renew(session, running[0], "me", 60, worked_seconds=1000.0)
    with database.read() as session:
        assert gpu_use.of_all(session) == {"default": 14.5, "other": 99.0}


def test_jobs_on_cores_cost_nothing(database):
    with database.write() as session:
        job_id = factories.job(session).id
        attempts.claim(session, ["cpu"], "me", 60)
        attempts.renew(session, job_id, "me", 60, worked_seconds=10.0)
        assert gpu_use.of_all(session) == {}


def test_who_has_used_the_day_up_is_told_when_to_come_again(database, running):
    with database.write() as session:
        limits.put(session, "default", Limits(max_gpu_seconds=10))
        attempts.renew(session, running[0], "me", 60, worked_seconds=9.9)
        jobs.create(session, "default", NEW)
        attempts.renew(session, running[1], "me", 60, worked_seconds=0.1)
        failed = factories.job(session, state="failed", kind="ingest").id
        session.get_one(Job, failed).kind = "transfer"
        for ask in (lambda: jobs.create(session, "default", NEW), lambda: outcomes.retry(session, "default", failed)):
            with pytest.raises(TooMany) as caught:
                ask()
            assert caught.value.code == "too_many_gpu_seconds"
            assert 0 < caught.value.extra["retry_after_seconds"] <= 86_401
        jobs.create(session, "other", NEW)
        jobs.create(session, "default", jobs.NewJob(kind="ingest"))
        # What was used yesterday does not count today.
        for row in session.query(GpuUse):
            row.day -= timedelta(days=1)
        session.flush()
        jobs.create(session, "default", NEW)


def test_days_end(database, running):
    with database.write() as session:
        attempts.renew(session, running[0], "me", 60, worked_seconds=1.0)
        old = (now() - gpu_use.KEPT - timedelta(days=1)).date()
        session.add(GpuUse(project_id="default", day=old, job_id="job_old", seconds=5.0))
        session.flush()
        gpu_use.expire(session)
        assert [(row.job_id, row.seconds) for row in session.query(GpuUse)] == [(running[0], 1.0)]
