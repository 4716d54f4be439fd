"""Jobs: ask, watch, end, read the report. Their log is in `job_events`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Discriminator, Field, Tag
from sqlalchemy.orm import Session

from app.api.accepted import Accepted
from app.api.datasets import Failure
from app.api.deps import (
    BARE,
    WASTE,
    After,
    Context,
    Limit,
    Page,
    Project,
    ReadSession,
    State,
    WriteSession,
    reading,
)
from app.api.problems import RESPONSES
from app.bodies import BODY, By
from app.dataset_jobs import Priority
from app.db.models import Job
from app.errors import BadRequest
from app.extract_jobs import ExtractIn
from app.pages import report as pages
from app.pages.render import POLICY
from app.predict_jobs import KIND, PredictIn
from app.services import (
    adapted,
    datasets,
    extract_jobs,
    job_requests,
    jobs,
    models,
    outcomes,
    predict_jobs,
    reports,
    transfers,
)
from app.services.job_files import MADE
from app.texts import NAME

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=RESPONSES)
LOCATION = "/api/v1/jobs/{id}"
# Kinds of jobs that are made by asking for what they make.
ELSEWHERE = {
    "ingest": "/datasets",
    "backbone": "/backbones",
    "rank": "/rankings",
    "evaluate": "/evaluations",
    "advise": "/datasets/{id}/advice",
    "align": "/alignments",
}


class JobIn(BaseModel):
    """A transfer: what is to be learned, from which data, on which backbone."""

    model_config = BODY

    kind: str = Field(
        "transfer",
        description="transfer, predict or extract; others have calls of their own, which the refusal names.",
    )
    dataset: str | None = Field(None, description="What the model must work on; only zero_shot may do without.")
    backbone: str = Field("auto", max_length=200)
    recipe: dict[str, Any] = Field({"method": "auto"}, description="See GET /api/v1/recipes.")
    model: str = Field(pattern=NAME, description="Name under which the result is published.")
    seed: int = Field(0, ge=0, lt=2**31)
    report: Literal["fast", "full"] = Field(
        "fast", description="full: a job that follows fills in what costs time; the version is served before."
    )
    depends_on: list[str] = Field([], max_length=100)
    priority: Priority = 0
    allow_label_change: bool = False
    int8: bool = Field(
        False,
        description="Whether a second graph in 8 bits is made on the job's images; it is published where accuracy is "
        "shown to fall by no more than 0.01, and answers where it is asked for.",
    )
    fp16: bool = Field(False, description="As int8, for a graph in half precision: for services on a GPU.")
    sample: bool = Field(
        True,
        description="Whether the bundle may hold small copies of two training images, to try the version on before it "
        "is served; else they are made-up pictures.",
    )


def _body(given: Any) -> str:
    kind = given.get("kind") if isinstance(given, dict) else None
    return kind if isinstance(kind, str) and kind in MADE else "transfer"


AnyJob = Annotated[
    Annotated[JobIn, Tag("transfer")] | Annotated[PredictIn, Tag("predict")] | Annotated[ExtractIn, Tag("extract")],
    By(Discriminator(_body)),
]


class ModelRef(BaseModel):
    """A published version."""

    name: str
    version: int


class Progress(BaseModel):
    """How far a job is."""

    fraction: float
    stage: str
    eta_seconds: float | None


class JobOut(BaseModel):
    """One job."""

    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    queue: Literal["cpu", "gpu"]
    priority: int
    progress: Progress
    attempt: int
    recipe: dict[str, Any] | None
    dataset: str | None
    backbone: str | None
    seed: int
    model: ModelRef | None = Field(description="The version that it has published; of kind predict, the one asked.")
    request: dict[str, Any] | None = Field(
        description="Of kind predict or extract: what was asked, with the version and the alignment that it means."
    )
    follow_up: str | None = Field(
        description="Of a transfer whose report is a full one: the job that fills in what a fast one does not have."
    )
    follows: str | None = Field(description="Of such a job: the transfer whose report it fills in.")
    metrics: dict[str, float | int | None] | None
    failure: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def _out(row: Job, published: tuple[str, int] | None) -> JobOut:
    request = row.inputs["request"] if row.kind in MADE else None
    if request is not None and row.kind == KIND:
        published = request["model"], request["version"]
    return JobOut(
        id=row.id,
        kind=row.kind,
        state=row.state,
        queue=row.queue,
        priority=row.priority,
        progress=Progress(**row.progress),
        attempt=row.attempt,
        recipe=row.recipe,
        dataset=row.dataset_id,
        backbone=row.backbone,
        seed=row.seed,
        model=ModelRef(name=published[0], version=published[1]) if published else None,
        request=request,
        follow_up=reports.follow_up(row),
        follows=reports.follows(row),
        metrics=row.metrics,
        failure=Failure.of(row.failure_code, row.failure_message),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


@router.post("", status_code=202, response_model=JobOut)
def create_job(body: AnyJob, accept: Accepted, state: Context, session: WriteSession, project: Project) -> Any:
    """Queues a transfer; of kind `predict` a version over a dataset or an upload, of kind `extract` a backbone."""
    if isinstance(body, ExtractIn):
        return accept.answer("POST /jobs", body.model_dump(), lambda: _extract(state, session, project, body), LOCATION)
    if isinstance(body, PredictIn):
        datasets.check_beginning_of(state.database, state.inbox, project, body.upload_id)
        return accept.answer("POST /jobs", body.model_dump(), lambda: _predict(session, project, body), LOCATION)
    if body.kind != "transfer":
        call = ELSEWHERE.get(body.kind)
        told = "" if call is None else f", which has a call of its own: POST /api/v1{call}"
        raise BadRequest(
            f"expected the kind transfer, predict or extract; found {body.kind!r}{told}", code="unknown_kind"
        )
    wish = transfers.Wish(
        dataset_id=body.dataset,
        backbone=body.backbone,
        recipe=body.recipe,
        model=body.model,
        seed=body.seed,
        report=body.report,
        depends_on=tuple(body.depends_on),
        priority=body.priority,
        allow_label_change=body.allow_label_change,
        sample=body.sample,
        int8=body.int8,
        fp16=body.fp16,
    )

    def make() -> JobOut:
        return _out(transfers.create(session, project, wish, state.settings.offline), None)

    return accept.answer("POST /jobs", body.model_dump(), make, LOCATION)


def _extract(state: State, session: Session, project: str, body: ExtractIn) -> JobOut:
    return _out(extract_jobs.create(session, project, body, state.settings.offline), None)


def _predict(session: Session, project: str, body: PredictIn) -> JobOut:
    return _out(predict_jobs.create(session, project, body), None)


@router.get("", response_model=Page[JobOut])
def list_jobs(
    session: ReadSession,
    project: Project,
    limit: Limit = 50,
    after: After = None,
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"] | None = None,
    dataset: Annotated[str | None, Query(max_length=100)] = None,
) -> Any:
    """Jobs, newest first."""
    rows, more = jobs.page(session, project, limit, after, state, dataset)
    published = models.of_jobs(session, [row.id for row in rows])
    return Page(data=[_out(row, published.get(row.id)) for row in rows], has_more=more)


@router.get("/{job_id}", response_model=JobOut)
async def get_job(job_id: str, state: Context, project: Project) -> Any:
    """One job."""

    def read(session: Session) -> JobOut:
        row = jobs.get(session, project, job_id)
        return _out(row, models.of_jobs(session, [job_id]).get(job_id))

    return await reading(state, read)


@router.post("/{job_id}/cancel", dependencies=[BARE], response_model=JobOut)
def cancel_job(job_id: str, session: WriteSession, project: Project) -> Any:
    """Ends a job and discards its work."""
    job, waste = outcomes.cancel(session, project, job_id)
    session.info.setdefault(WASTE, []).extend(waste)
    return _out(job, None)


@router.post("/{job_id}/stop", dependencies=[BARE], response_model=JobOut)
def stop_job(job_id: str, session: WriteSession, project: Project) -> Any:
    """Ends a running job early and keeps the best so far."""
    return _out(job_requests.stop(session, project, job_id), None)


@router.post("/{job_id}/retry", status_code=202, dependencies=[BARE], response_model=JobOut)
def retry_job(job_id: str, accept: Accepted, session: WriteSession, project: Project) -> Any:
    """Queues a failed or cancelled job again; it resumes from its checkpoints."""

    def make() -> JobOut:
        return _out(outcomes.retry(session, project, job_id), None)

    return accept.answer("POST /jobs/retry", {"job": job_id}, make, LOCATION)


@router.get(
    "/{job_id}/report",
    response_model=dict[str, Any],
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_report(job_id: str, request: Request, session: ReadSession, project: Project) -> Any:
    """The transfer report, as JSON, or as a page when a browser asks."""
    document = reports.read(session, project, job_id)
    accept = request.headers.get("accept", "")
    if "text/html" in accept and "application/json" not in accept.partition("text/html")[0]:
        known = adapted.finished(session, project) if "domain" in document else ()
        return HTMLResponse(pages.render(document, job_id, known), headers={"Content-Security-Policy": POLICY})
    return document
