"""Transfer reports: kept with their job; what a full one has beyond a fast one is filled in by a job that follows.

Who it is that fills in, and how far that job is, is looked up when the report is read, so it is never told wrongly.
"""

import copy
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from app import report_paths
from app.db.models import Job, ModelVersion, Report
from app.db.studies import Evaluation
from app.errors import NotFound
from app.evaluations import REPORT
from app.services import evaluations, jobs, served_versions, studies
from app.states import JobState

# The lowest priority that a job may be given; one that follows goes behind those that were asked for as urgently.
MIN_PRIORITY = -100
Document = dict[str, Any]


def store(session: Session, job: Job, version: ModelVersion, document: Document) -> None:
    """Keeps a transfer's report, and queues the job that fills in what it waits for, if it waits for anything.

    Called in the transaction that ends the transfer, whose place among the project's jobs that one takes.
    """
    told = document.get("follow_up")
    if told:
        follower = _queue(session, job, version)
        document = {**document, "follow_up": {**told, "job": follower}}
        job.inputs = {**job.inputs, "follow_up": follower}
        jobs.log(session, job, "log", f"{follower} fills in what its report waits for", follow_up=follower)
    session.merge(Report(job_id=job.id, project_id=job.project_id, document=document))


def _queue(session: Session, job: Job, version: ModelVersion) -> str:
    """Queues the evaluation that fills in; its job's id."""
    project, name = job.project_id, job.model_name or ""
    side = served_versions.pinned(session, project, name, version, None)
    inputs = {"original": {"job": job.id}, "side": side}
    request, new = evaluations.of_transfer(REPORT, job, name, version.version, inputs)
    # Some of it is of the images that the transfer had beside its dataset.
    beside = {role: dataset.id for role, dataset in jobs.datasets(session, job.id).items()}
    new = replace(new, priority=max(MIN_PRIORITY, job.priority - 1), datasets=beside)
    row = studies.create(session, Evaluation, project, request, new, jobs.enqueue)
    assert row.job_id is not None
    return row.job_id


def follow_up(job: Job) -> str | None:
    """Which job fills in the report of this one; None where none does."""
    found: str | None = job.inputs.get("follow_up")
    return found


def follows(job: Job) -> str | None:
    """Whose report this job fills in; None of any other job."""
    if job.kind != "evaluate" or job.inputs.get("mode") != REPORT:
        return None
    found: str = job.inputs["original"]["job"]
    return found


def fill(session: Session, result: Document) -> None:
    """Writes what a job has found into the report that waited for it; called in the transaction that ends that job."""
    row = session.get_one(Report, result["job"], with_for_update=True)
    row.document = filled(row.document, result)


def filled(document: Document, result: Document) -> Document:
    """The report with what was found; what it had already stays as it is.

    Args:
        document: the report.
        result: `filled` values by their dotted paths, `not_computed`, `flags`, `decisions`.
    """
    document = copy.deepcopy(document)
    for path, value in result["filled"].items():
        parent, _, name = path.rpartition(".")
        report_paths.value_at(document, parent)[name] = value
    anew = {*document["follow_up"]["fills"], *result["filled"]}
    kept = {path: reason for path, reason in document["not_computed"].items() if not report_paths.is_within(path, anew)}
    document["not_computed"] = kept | result["not_computed"]
    document["flags"] += result["flags"]
    document["decisions"] += result["decisions"]
    return document


def read(session: Session, project: str, job_id: str) -> Document:
    """The transfer report, with why each part that waits for a job is not there yet, or will not be.

    Raises:
        NotFound: no such job, or it has no report (yet).
    """
    job = jobs.get(session, project, job_id)
    row = session.get(Report, job_id)
    if row is None:
        raise NotFound(
            f"expected a finished transfer; found a job of kind {job.kind} that is {job.state}; it has no report",
            code="no_report",
        )
    told = row.document.get("follow_up")
    follower = session.get(Job, told["job"]) if told and told["job"] else None
    return row.document if follower is None else _as_of_now(row.document, follower)


def _as_of_now(document: Document, follower: Job) -> Document:
    told = document["follow_up"]
    document = {**document, "follow_up": {**told, "state": str(follower.state)}}
    if follower.state == JobState.SUCCEEDED:
        return document
    reason = _reason(follower)
    document["not_computed"] = document["not_computed"] | dict.fromkeys(told["fills"], reason)
    if "baselines.scratch" in told["fills"]:
        document["baselines_skipped"] = document["baselines_skipped"] | {"scratch": reason}
    if "forecast.more_images" in told["fills"]:
        document["forecast"] = document["forecast"] | {"more_images_skipped": reason}
    return document


def _reason(follower: Job) -> str:
    if follower.state in (JobState.QUEUED, JobState.RUNNING):
        return f"not computed yet: job {follower.id} fills it in"
    why = "was cancelled" if follower.state == JobState.CANCELLED else f"failed ({follower.failure_message})"
    # What is gone stays gone: the failure says what to do.
    hint = "" if follower.failure_code == "version_deleted" else "; retry that job to have it"
    return f"not computed: job {follower.id}, which was to fill it in, {why}{hint}"
