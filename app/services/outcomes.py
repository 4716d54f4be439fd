"""How an attempt's result becomes rows: one transaction, fenced by the lease.

Each kind of job has one function in `FINISHERS`; it returns storage prefixes that nothing needs any more.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, UserBackbone
from app.evaluations import REPORT
from app.services import (
    alignments,
    attempts,
    datasets,
    forecasts,
    ingestions,
    job_requests,
    jobs,
    own_backbones,
    publications,
    references,
    reports,
    studies,
    uploads,
    waste,
)
from app.states import FINAL, JobState

Result = dict[str, Any]


def succeed(session: Session, job_id: str, owner: str, result: Result) -> list[str]:
    """Stores the result and ends the job.

    Returns:
        storage prefixes to delete after the commit.

    Raises:
        LeaseLost: the owner no longer holds the job; nothing was written.
    """
    job = attempts.owned(session, job_id, owner)
    return FINISHERS[job.kind](session, job, result)


def fail(session: Session, job_id: str, owner: str, code: str, message: str) -> list[str]:
    """Ends the job as failed.

    Returns:
        storage prefixes to delete after the commit.

    Raises:
        LeaseLost: the owner no longer holds the job; nothing was written.
    """
    job = attempts.owned(session, job_id, owner)
    attempts.fail(session, job, code, message)
    return clear(session, job, code, job.failure_message or "")


def cancel(session: Session, project: str, job_id: str) -> tuple[Job, list[str]]:
    """Ends the job as its owner asked; see `job_requests.cancel`.

    Returns:
        the job, and storage prefixes to delete after the commit: a running job's are freed by its supervisor.

    Raises:
        Conflict: the job has already ended.
    """
    job = job_requests.cancel(session, project, job_id)
    waste = clear(session, job, "cancelled", "cancelled before it started") if job.state == JobState.CANCELLED else []
    return job, waste


def retry(session: Session, project: str, job_id: str) -> Job:
    """Queues an ended job again, and opens what it is to make; see `job_requests.retry`.

    Raises:
        Conflict: see `job_requests.retry`; or what the job was to answer was deleted.
        BadRequest: the job's input is gone.
    """
    job = job_requests.retry(session, project, job_id)
    waste.forget(session, jobs.checkpoints(job.project_id, job.id))
    if job.kind in studies.TABLES:
        studies.reopen(session, job)
    if job.kind == "backbone":
        own_backbones.reopen(session, job)
    return job


def clear(session: Session, job: Job, code: str, message: str) -> list[str]:
    """What a job that ended without a result leaves behind: what it was to make is marked.

    Returns:
        storage prefixes to delete after the commit.
    """
    if job.kind == "ingest" and job.dataset_id:
        ingestions.invalidate(session, job.dataset_id, code, message)
    if job.kind == "backbone":
        row = session.get(UserBackbone, job.inputs["backbone_id"], with_for_update=True)
        if row is not None:
            row.state, row.failure_code, row.failure_message = "invalid", code, message
            row.size_bytes = row.size_bytes if _is_kept(job) else 0
    if job.kind == "align":
        alignments.fail(session, job.inputs["alignment_id"], code, message)
    if job.kind in studies.TABLES:
        studies.fail(session, job, code, message)
    return _given_up(job)


def _given_up(job: Job) -> list[str]:
    """Prefixes of a job that ended without a result. What a failed one that may be retried has computed stays."""
    checkpoints = [jobs.checkpoints(job.project_id, job.id)]
    if job.kind in studies.TABLES:
        return [studies.prefix(job.project_id, job.inputs["study_id"]), *checkpoints]
    if job.kind == "ingest" and job.dataset_id:
        return [*_archive(job), datasets.prefix(job.project_id, job.dataset_id)]
    if job.kind == "backbone":
        return [] if _is_kept(job) else _checkpoint(job)
    if job.kind == "predict" and "archive" in job.inputs:
        return [*_archive(job), *checkpoints]
    return checkpoints if job.state == JobState.CANCELLED and job.kind in ("transfer", "predict") else []


def late(session: Session, job_id: str, attempt: int, bundle: str) -> list[str]:
    """What an attempt that has lost its lease may have stored after others went on or the job ended; nothing needs it.

    Args:
        session: the open transaction.
        job_id: of the job, which may be gone.
        attempt: that is late.
        bundle: prefix of what it publishes.
    """
    job = session.get(Job, job_id)
    if job is None or job.state not in FINAL:
        # Checkpoints are shared with the attempt that goes on.
        return [bundle]
    if job.state != JobState.SUCCEEDED:
        return [bundle, *_given_up(job)]
    given_up = [] if job.attempt == attempt else [bundle]
    if "deleted_dataset" in job.inputs and job.kind == "ingest":
        given_up.append(datasets.prefix(job.project_id, job.inputs["deleted_dataset"]))
    return [*given_up, jobs.checkpoints(job.project_id, job.id)]


def _ingest(session: Session, job: Job, result: Result) -> list[str]:
    dataset = session.get_one(Dataset, job.dataset_id)
    failure = ingestions.complete(session, dataset, result)
    waste = _archive(job)
    if failure:
        attempts.fail(session, job, "dataset_invalid", failure["message"])
        return [*waste, datasets.prefix(job.project_id, dataset.id)]
    _succeeded(
        session, job, f"{dataset.num_samples} samples, {len(dataset.classes)} classes, {dataset.num_problems} problems"
    )
    return waste


def _transfer(session: Session, job: Job, result: Result) -> list[str]:
    version = publications.publish(session, job, result["prefix"], result["spec"], result["metrics"])
    job.metrics = result["metrics"]
    reports.store(session, job, version, result["report"])
    forecasts.record(session, job, result["report"])
    _succeeded(
        session,
        job,
        f"published {job.model_name} version {version.version}",
        model=job.model_name,
        version=version.version,
    )
    return [jobs.checkpoints(job.project_id, job.id), *_lost(job)]


def _backbone(session: Session, job: Job, result: Result) -> list[str]:
    row = session.get_one(UserBackbone, job.inputs["backbone_id"], with_for_update=True)
    row.mapping = result["mapping"]
    if result["failure"]:
        attempts.fail(session, job, jobs.REFUSED, result["failure"])
        row.state, row.failure_code, row.failure_message = "invalid", job.failure_code, job.failure_message
        row.size_bytes = 0
        return _checkpoint(job)
    # A worker of the release before this one does not tell.
    row.size_bytes = result.get("size_bytes", row.size_bytes)
    row.state, row.document = "ready", result["document"]
    _succeeded(session, job, f"backbone {row.name} added")
    return _checkpoint(job)


def _archive(job: Job) -> list[str]:
    """The upload behind a dataset or behind predictions: what came in pieces keeps its own key."""
    if job.kind == "ingest":
        assert job.dataset_id is not None
        return [job.inputs.get("archive") or uploads.incoming(job.project_id, job.dataset_id)]
    return [job.inputs["archive"]] if "archive" in job.inputs else []


def _is_kept(job: Job) -> bool:
    """Whether own weights that were sent stay, for another try of a check that came to no end."""
    again = job.state == JobState.FAILED and jobs.is_retried(job.kind, job.inputs, job.failure_code)
    return again and "file" in job.inputs


def _checkpoint(job: Job) -> list[str]:
    """The upload behind a backbone; weights of a version belong to that version."""
    return [job.inputs["file"]] if "file" in job.inputs else []


def _align(session: Session, job: Job, result: Result) -> list[str]:
    row = alignments.complete(session, job.inputs["alignment_id"], result)
    _succeeded(session, job, f"alignment {row.number} is ready", alignment=row.id, number=row.number)
    return _lost(job)


def _study(session: Session, job: Job, result: Result) -> list[str]:
    row = studies.complete(session, job, result["result"])
    if job.inputs.get("mode") == REPORT:
        reports.fill(session, result["result"])
    job.metrics = result["metrics"]
    _succeeded(session, job, f"{studies.NAMES[type(row)]} is ready", study=row.id)
    # Methods that a study carries out write checkpoints as they always do.
    return [jobs.checkpoints(job.project_id, job.id)]


def _predict(session: Session, job: Job, result: Result) -> list[str]:
    job.inputs = {**job.inputs, "file": result["file"]}
    job.metrics = result["metrics"]
    request = job.inputs["request"]
    _succeeded(
        session,
        job,
        f"{result['metrics']['num_samples']} images predicted by {request['model']} version {request['version']}",
        model=request["model"],
        version=request["version"],
    )
    return [*_archive(job), jobs.checkpoints(job.project_id, job.id), *_lost(job)]


def _extract(session: Session, job: Job, result: Result) -> list[str]:
    job.inputs = {**job.inputs, "file": result["file"]}
    job.metrics = result["metrics"]
    _succeeded(session, job, f"features of {result['metrics']['num_samples']} images under {job.backbone}")
    return _lost(job)


def strays(session: Session, keys: Iterable[str]) -> list[str]:
    """Of checkpoints in storage, the prefixes that no attempt will read again.

    A frozen worker's runner goes on after another attempt has ended the job; killed then, it leaves its last ones.
    """
    places = {place[1:] for key in keys if (place := references.place(key)) is not None}
    known = {job.id: job for job in session.scalars(select(Job).where(Job.id.in_({job_id for _, job_id in places})))}
    gone = []
    for project, job_id in sorted(places):
        job, prefix = known.get(job_id), jobs.checkpoints(project, job_id)
        if job is None or job.state == JobState.SUCCEEDED or (job.state in FINAL and prefix in _given_up(job)):
            gone.append(prefix)
    return gone


def bundles(job: Job) -> list[str]:
    """Where the job's attempts may have stored something: one that was killed could not take it away."""
    return [f"bundles/{job.project_id}/{job.id}/attempt-{number}" for number in range(1, job.attempt + 1)]


def _lost(job: Job) -> list[str]:
    """What all but the last attempt may have stored."""
    return bundles(job)[:-1]


def _succeeded(session: Session, job: Job, message: str, **data: Any) -> None:
    job.progress = {"fraction": 1.0, "stage": "done", "eta_seconds": 0.0}
    jobs.move(session, job, JobState.SUCCEEDED, message, **data)


FINISHERS: dict[str, Callable[[Session, Job, Result], list[str]]] = {
    "ingest": _ingest,
    "transfer": _transfer,
    "backbone": _backbone,
    "align": _align,
    "predict": _predict,
    "extract": _extract,
    **dict.fromkeys(studies.TABLES, _study),
}
