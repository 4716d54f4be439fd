"""What owners ask of a job: to end it, to end it early with what it has, to do it again."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Job, JobDependency
from app.errors import BadRequest, Conflict
from app.evaluations import FOLDS
from app.services import jobs, limits, queues
from app.states import JobState, Request


def cancel(session: Session, project: str, job_id: str) -> Job:
    """Ends the job and discards its work: at once when it waits, through its supervisor when it runs.

    Raises:
        Conflict: the job has already ended.
    """
    job = jobs.locked(session, project, job_id)
    if job.state == JobState.QUEUED:
        jobs.move(session, job, JobState.CANCELLED, "cancelled before it started")
        jobs.drop_dependents(session, job)
    elif job.state == JobState.RUNNING:
        job.request = Request.CANCEL
        jobs.log(session, job, "log", "cancel requested")
    else:
        raise Conflict(f"expected a job that waits or runs; found one that is {job.state}; nothing to cancel")
    return job


def stop(session: Session, project: str, job_id: str) -> Job:
    """Asks a running job to end early and keep the best so far.

    Raises:
        Conflict: the job does not run, or it is of a kind that has no best so far.
    """
    job = jobs.locked(session, project, job_id)
    # Of repeated folds those that are finished are kept, of a ranking the order of those that were looked at, of
    # predictions those of the first images.
    if job.kind not in ("transfer", "rank", "predict") and job.inputs.get("mode") != FOLDS:
        raise Conflict(
            "expected a transfer, a ranking, predictions or an evaluation by folds; found a job of kind "
            f"{job.kind}, which keeps nothing half done; cancel it"
        )
    if job.state != JobState.RUNNING or job.request == Request.CANCEL:
        found = "being cancelled" if job.state == JobState.RUNNING else job.state
        raise Conflict(f"expected a running job; found one that is {found}; only a running job has a best so far")
    job.request = Request.STOP
    jobs.log(session, job, "log", "stop requested")
    return job


def retry(session: Session, project: str, job_id: str) -> Job:
    """Queues an ended job again; checkpoints of its last attempt are used. See `outcomes.retry` for what it makes.

    Raises:
        Conflict: the job has not failed and was not cancelled, or one that it depends on has, or its dataset is gone.
        BadRequest: the job's input is gone.
        TooMany: codes too_many_jobs, too_many_gpu_seconds.
    """
    # The datasets first, as their deletion does: the other order could end in a deadlock.
    own = jobs.get(session, project, job_id).dataset_id
    for dataset_id in [own, *(row.id for row in jobs.datasets(session, job_id).values())]:
        jobs.keep_dataset(session, dataset_id)
    limits.lock(session, project)
    limits.check_job(session, project)
    job = jobs.locked(session, project, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"expected a job that failed or was cancelled; found one that is {job.state}")
    if not jobs.is_retried(job.kind, job.inputs, job.failure_code):
        why = (
            "whose upload is gone; upload it again"
            if job.kind in ("ingest", "backbone", "predict") and "source" not in job.inputs
            else "whose result failed with it; post it again"
        )
        raise BadRequest(
            f"expected a job of kind {', '.join(jobs.RETRIED)}; found one of kind {job.kind}, {why}",
            code="not_retryable",
        )
    if "deleted_dataset" in job.inputs:
        raise Conflict(
            f"expected a job whose dataset is there; found {job.inputs['deleted_dataset']} deleted; "
            "upload it again and create a new job"
        )
    for needed in session.scalars(select(JobDependency.depends_on_id).where(JobDependency.job_id == job_id)):
        jobs.check_dependency(jobs.locked(session, project, needed))
    job.losses = 0
    job.progress = dict(jobs.NOT_BEGUN)
    job.failure_code = job.failure_message = None
    job.finished_at = None
    job.queue = queues.choose(session, job.kind)
    limits.check_gpu(session, project, job.queue)
    jobs.move(session, job, JobState.QUEUED, "queued again")
    queues.note_bell(session, job.queue)
    return job
