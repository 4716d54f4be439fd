"""Whose turn it is, on both databases."""

from app.db.models import Job
from app.services import attempts, jobs, limits
from app.services.limits import Limits
from app.states import JobState
from tests import factories


def claim(database, queues=("cpu",)):
    """(project, id) of the job that is claimed; None where there is none."""
    with database.write() as session:
        job = attempts.claim(session, queues, "me", 60)
        return None if job is None else (job.project_id, job.id)


def ended(database, job_id):
    with database.write() as session:
        jobs.move(session, session.get_one(Job, job_id), JobState.SUCCEEDED)


def projects(database, *names):
    with database.write() as session:
        for name in names:
            factories.project(session, name)


def test_turns_go_round_and_a_flood_holds_nobody_up(database):
    projects(database, "flood", "calm")
    with database.write() as session:
        for _ in range(6):
            factories.job(session, project_id="flood", priority=50)
        late = [factories.job(session, project_id="calm", priority=priority).id for priority in (0, 0, 5)]
    served = []
    # One slot: nothing runs when a claim is made, so only the turns tell the two apart.
    while found := claim(database):
        served.append(found)
        ended(database, found[1])
    assert [name for name, _ in served] == ["flood", "calm"] * 3 + ["flood"] * 3
    assert [job_id for name, job_id in served if name == "calm"] == [late[2], *sorted(late[:2])]


def test_who_runs_less_goes_first_however_urgent_others_are(database):
    projects(database, "busy", "calm")
    with database.write() as session:
        urgent = [factories.job(session, project_id="busy", priority=100).id for _ in range(3)]
    first = claim(database)
    assert first == ("busy", urgent[0])
    with database.write() as session:
        waits = [factories.job(session, project_id="calm").id for _ in range(2)]
    assert [claim(database) for _ in range(4)] == [
        ("calm", waits[0]), ("busy", urgent[1]), ("calm", waits[1]), ("busy", urgent[2])
    ]  # fmt: skip


def test_jobs_in_other_queues_do_not_count(database):
    projects(database, "trains", "uploads")
    with database.write() as session:
        factories.worker(session, queues=["cpu", "gpu"])
        factories.job(session, project_id="trains")
        assert attempts.claim(session, ["gpu"], "g", 60) is not None
        for name in ("uploads", "trains", "uploads"):
            factories.job(session, project_id=name, kind="ingest")
    # It runs nothing here, but was served later than who never was.
    assert [claim(database)[0] for _ in range(3)] == ["uploads", "trains", "uploads"]


def test_the_better_of_two_queues(database):
    with database.write() as session:
        slow = factories.job(session).id
        factories.worker(session, queues=["gpu"])
        fast = factories.job(session, priority=1).id
        urgent = factories.job(session, kind="ingest", priority=2).id
    assert [claim(database, ("cpu", "gpu"))[1] for _ in range(3)] == [urgent, fast, slow]


def test_who_has_used_the_day_up_starts_nothing_on_a_gpu(database):
    projects(database, "spent", "fresh")
    with database.write() as session:
        factories.worker(session, queues=["cpu", "gpu"])
        limits.put(session, "spent", Limits(max_gpu_seconds=100))
        first = factories.job(session, project_id="spent").id
        waits = factories.job(session, project_id="spent", priority=9).id
        other = factories.job(session, project_id="fresh").id
        cheap = factories.job(session, project_id="spent", kind="ingest").id
        attempts.claim(session, ["gpu"], "g", 60)
        attempts.claim(session, ["gpu"], "h", 60)
        assert {session.get_one(Job, one).state for one in (waits, other)} == {JobState.RUNNING}
        attempts.renew(session, waits, session.get_one(Job, waits).lease_owner, 60, worked_seconds=100.0)
    assert claim(database, ("cpu", "gpu")) == ("spent", cheap)
    assert claim(database, ("cpu", "gpu")) is None
    with database.write() as session:
        limits.put(session, "spent", Limits(max_gpu_seconds=101))
    assert claim(database, ("cpu", "gpu")) == ("spent", first)
