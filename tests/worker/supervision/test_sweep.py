"""What a worker does between jobs, on both databases."""

import threading
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select, update

from app.db.base import now
from app.db.models import Dataset, Job, WorkerProcess
from app.db.waste import Waste
from app.services import attempts, job_requests, jobs, queues
from app.storage import FolderStorage
from tests import factories
from tests.conftest import wait_until
from tests.factories import files_below
from worker.supervision import clean, sweep


def messages(home):
    return files_below(home / "broker" / "messages")


def silent(context, **fields):
    """A running job whose lease has run out."""
    with context.database.write() as session:
        job_id = factories.job(session, **fields).id
        attempts.claim(session, ["cpu", "gpu"], "gone", -1)
    return job_id


def job(context, job_id):
    with context.database.read() as session:
        return session.get_one(Job, job_id)


def workers(context):
    with context.database.read() as session:
        return session.scalars(select(WorkerProcess).order_by(WorkerProcess.id)).all()


def test_silent_job_is_handed_back_and_rung_for(context, home):
    job_id = silent(context)
    sweep.sweep(context)
    found = job(context, job_id)
    assert (found.state, found.losses, found.lease_owner) == ("queued", 1, None)
    with context.database.read() as session:
        assert "fell silent" in jobs.events(session, job_id, 0, 100)[0][-1].message
    assert len(messages(home)) == 1


def test_living_job_is_left_alone(context, home):
    with context.database.write() as session:
        job_id = factories.job(session).id
        attempts.claim(session, ["cpu"], "alive", 60)
    sweep.sweep(context)
    assert (job(context, job_id).state, job(context, job_id).lease_owner) == ("running", "alive")
    assert messages(home) == []


def test_after_an_outage_living_workers_have_time_to_renew_what_ran_out_meanwhile(context):
    """All of them come back within a moment of each other, and the first must not take the others' jobs."""
    job_id = silent(context)
    lease = timedelta(seconds=context.settings.lease_seconds)
    sweep.sweep(context, now() - lease)
    assert (job(context, job_id).state, job(context, job_id).losses) == ("running", 0)
    sweep.sweep(context, now() - lease / 2)
    assert (job(context, job_id).state, job(context, job_id).losses) == ("queued", 1)


def test_lost_jobs_are_taken_back_where_every_round_comes_late(context):
    """Their leases are shorter than a round, and no outage lasts for ever."""
    quick = replace(context, settings=context.settings.model_copy(update={"lease_seconds": 0.001}))
    thread = sweep.start(quick, "cpu")
    wait_until(lambda: workers(context), "the worker's row")
    for _ in range(2):
        job_id = silent(context)
        wait_until(lambda lost=job_id: job(context, lost).state == "queued", "a job that is taken back")
    context.stopping.set()
    thread.join(30)
    assert not thread.is_alive()


def test_attempts_that_run_out_leave_nothing_behind(context, home, storage, tmp_path):
    (tmp_path / "x").write_text("x")
    with context.database.write() as session:
        dataset_id = factories.dataset(session, state="ingesting").id
    ingestion = silent(context, kind="ingest", dataset_id=dataset_id, losses=context.settings.max_attempts - 1)
    transfer = silent(context, losses=context.settings.max_attempts - 1)
    for key in (
        f"incoming/default/{dataset_id}", f"datasets/default/{dataset_id}/index.parquet",
        f"bundles/default/{transfer}/attempt-1/spec.json",
    ):  # fmt: skip
        storage.put(key, tmp_path / "x")
    sweep.sweep(context)
    for job_id in (ingestion, transfer):
        assert (job(context, job_id).state, job(context, job_id).failure_code) == ("failed", "worker_lost")
    with context.database.write() as session:
        session.execute(update(Waste).values(due_at=now()))
    clean.clean(context)
    assert files_below(home / "storage") == []
    with context.database.read() as session:
        row = session.get_one(Dataset, dataset_id)
    assert (row.state, row.failure_code) == ("invalid", "worker_lost")


def test_silent_job_that_was_cancelled_ends(context):
    job_id = silent(context)
    with context.database.write() as session:
        job_requests.cancel(session, "default", job_id)
    sweep.sweep(context)
    assert job(context, job_id).state == "cancelled"


def test_waiting_jobs_are_rung_for_on_own_queues_only(context, home):
    with context.database.write() as session:
        factories.worker(session, queues=["gpu"])
        factories.job(session)
    sweep.sweep(context)
    assert messages(home) == []
    with context.database.write() as session:
        factories.job(session, kind="ingest")
    sweep.sweep(context)
    (message,) = messages(home)
    assert message.endswith(".cpu.msg")


def test_worker_without_a_free_slot_rings_not(context, home):
    with context.database.write() as session:
        factories.job(session)
    with context.slots:
        sweep.sweep(context)
        assert messages(home) == []
    sweep.sweep(context)
    assert len(messages(home)) == 1


def test_worker_shows_itself_and_leaves(context):
    sweep.show(context, "cpu")
    (first,) = workers(context)
    assert (first.id, first.queues, first.device) == ("w1", ["cpu"], "cpu")
    # The starters' weights lie in packages that the tests need as well.
    assert factories.BACKBONE in first.backbones
    sweep.show(context, "cpu")
    (second,) = workers(context)
    assert second.seen_at > first.seen_at
    assert second.started_at == first.started_at
    sweep.leave(context)
    with context.database.read() as session:
        assert queues.live_workers(session) == []
        assert queues.served(session) == {"cpu"}
    sweep.leave(context)


def test_worker_that_was_killed_is_forgotten(context):
    with context.database.write() as session:
        factories.worker(session, id="killed", seen_at=now() - timedelta(hours=2))
        factories.worker(session, id="other", seen_at=now() - timedelta(minutes=50))
    sweep.show(context, "cpu")
    assert [row.id for row in workers(context)] == ["other", "w1"]


def test_sweeping_goes_on_until_the_end(context, home):
    thread = sweep.start(context, "cpu")
    wait_until(lambda: workers(context), "the worker's row")
    context.stopping.set()
    thread.join(30)
    assert not thread.is_alive()


class Silent(FolderStorage):
    """A storage that takes requests and answers none before it is let go."""

    def __init__(self, root):
        super().__init__(root)
        self.asked, self.let_go = threading.Event(), threading.Event()

    def delete(self, prefix):
        self.asked.set()
        self.let_go.wait(60)


def _comes_back(context):
    job_id, since = silent(context), now()
    wait_until(lambda: job(context, job_id).state == "queued", "a job that is taken back")
    wait_until(lambda: workers(context)[0].seen_at > since, "a worker that shows itself")


def test_storage_that_never_answers_keeps_no_job_lost_and_no_worker_dead(context, home):
    def give_up(prefix):
        with context.database.write() as session:
            session.add(Waste(prefix=prefix, project_id="default", due_at=now() - timedelta(seconds=1)))

    give_up("checkpoints/default/job_1")
    silence = Silent(home / "storage")
    quick = context.settings.model_copy(update={"lease_seconds": 0.1})
    cut_off = replace(context, storage=silence, settings=quick)
    sweeping, cleaning = sweep.start(cut_off, "cpu"), clean.start(cut_off)
    assert silence.asked.wait(30)
    # The first is claimed by the thread that hangs; another would hang whoever looks for more.
    give_up("checkpoints/default/job_2")
    for _ in range(2):
        _comes_back(context)
    context.stopping.set()
    sweeping.join(30)
    assert (sweeping.is_alive(), cleaning.is_alive(), cleaning.daemon) == (False, True, True)
    silence.let_go.set()
    cleaning.join(30)
    assert not cleaning.is_alive()


def test_jobs_of_a_gpu_that_left_move_to_the_cpu(context, home):
    with context.database.write() as session:
        factories.worker(session, queues=["cpu", "gpu"], seen_at=now() - queues.RETURN)
        job_id = factories.job(session, queue="gpu").id
        running = factories.job(session, state="running", queue="gpu").id
    sweep.sweep(context)
    assert job(context, job_id).queue == "gpu", "nobody serves the CPU either"
    sweep.show(context, "cpu")
    sweep.sweep(context)
    assert (job(context, job_id).queue, job(context, running).queue) == ("cpu", "gpu")
    with context.database.read() as session:
        assert "moved to cpu" in jobs.events(session, job_id, 0, 100)[0][-1].message
    assert [name.rpartition("/")[2].split(".")[1] for name in messages(home)] == ["cpu"]


def test_jobs_of_a_gpu_that_is_restarted_wait_for_it(context):
    sweep.show(context, "cpu")
    gone = replace(context, worker_id="w2", queues=("gpu",))
    sweep.show(gone, "cuda")
    sweep.leave(gone)
    with context.database.write() as session:
        job_id = factories.job(session, queue=queues.choose(session, "transfer")).id
    sweep.sweep(context)
    assert job(context, job_id).queue == "gpu"


def test_jobs_of_a_gpu_that_is_busy_stay(context):
    sweep.show(context, "cpu")
    with context.database.write() as session:
        factories.worker(session, queues=["gpu"])
        job_id = factories.job(session).id
    sweep.sweep(context)
    assert job(context, job_id).queue == "gpu"
