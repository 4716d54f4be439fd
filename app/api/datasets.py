"""Datasets: upload, look, list problems and samples, delete."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app import failpoints
from app.api import multipart
from app.api.accepted import Once, OnceEach
from app.api.deps import WASTE, After, Context, Limit, Page, Project, ReadSession, State, WriteSession
from app.api.forms import UNLIMITED, checked, checked_json, form_body, from_json, media_type, text_fields
from app.api.problems import RESPONSES
from app.db.base import new_id
from app.db.models import Dataset
from app.errors import BadRequest, UnsupportedMediaType
from app.services import datasets, samples, uploads, waste
from app.texts import NAME

router = APIRouter(prefix="/datasets", tags=["datasets"], responses=RESPONSES)
ROUTE = "POST /datasets"
# The app-wide limit is for JSON; an upload's own limit is counted while it streams in.


class DatasetForm(BaseModel):
    """Everything of an upload but the file; also the JSON body that names an upload, or a base to change."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME)
    task: str | None = Field(None, description="classification by default.")
    format: str = Field("auto", description="auto, folders, manifest, parquet or unlabelled.")
    seed: int = Field(0, ge=0, lt=2**31, description="Makes the split; a child has its base's, and no other.")
    upload_id: str | None = Field(None, max_length=40, description="A complete upload, in place of a file; used up.")
    base: str | None = Field(None, description="Makes a child: its samples are the base's, changed.")
    remove: list[str] = Field([], description="Sample ids of the base to leave out.")
    relabel: dict[str, str] = Field({}, description="Sample id of the base -> new label.")


class ClassOut(BaseModel):
    """One class."""

    name: str
    num_samples: int


class Failure(BaseModel):
    """Why something did not work."""

    code: str
    message: str

    @classmethod
    def of(cls, code: str | None, message: str | None) -> Self | None:
        """As a row has it; None where nothing has failed."""
        return cls(code=code, message=message or "") if code else None


class DatasetOut(BaseModel):
    """One dataset."""

    id: str
    name: str
    task: str
    modality: str
    base: str | None
    state: Literal["ingesting", "ready", "invalid"]
    num_samples: int
    classes: list[ClassOut]
    splits: dict[str, int]
    num_problems: int
    digest: str | None
    seed: int
    size_bytes: int = Field(
        description="As it is stored; as it was sent, with its base, while it is being ingested; 0 if invalid."
    )
    job_id: str | None
    created_at: datetime
    failure: Failure | None


class ProblemOut(BaseModel):
    """One finding: what, where, and how to mend it."""

    seq: int
    severity: Literal["error", "warning"]
    code: str
    path: str | None
    message: str
    fix: str


class SampleOut(BaseModel):
    """One sample."""

    id: str
    path: str
    label: str | float | list[str] | None
    labels: dict[str, str | float | list[str] | None] | None = Field(
        description="By column, in a dataset with several."
    )
    split: Literal["train", "val", "test"]
    sha256: str
    width: int
    height: int


def document(row: Dataset) -> DatasetOut:
    """The document of a row."""
    return DatasetOut(
        id=row.id,
        name=row.name,
        task=row.task,
        modality=row.modality,
        base=row.base_id,
        state=row.state,
        num_samples=row.num_samples,
        classes=[ClassOut(**item) for item in row.classes],
        splits=row.splits,
        num_problems=row.num_problems,
        digest=row.digest,
        seed=row.seed,
        size_bytes=row.size_bytes,
        job_id=row.job_id,
        created_at=row.created_at,
        failure=Failure.of(row.failure_code, row.failure_message),
    )


@router.post(
    "",
    status_code=202,
    response_model=DatasetOut,
    max_body_size=UNLIMITED,
    openapi_extra=form_body(
        ["name"],
        {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "zip, tar, tar.gz or Parquet",
            },
            "name": {"type": "string", "pattern": NAME},
            "task": {"type": "string"},
            "format": {"type": "string", "enum": list(datasets.FORMATS)},
            "seed": {"type": "integer", "minimum": 0},
            "upload_id": {"type": "string", "description": "A complete upload, in place of file"},
            "base": {"type": "string"},
            "remove": {"type": "string", "description": "JSON list of sample ids"},
            "relabel": {"type": "string", "description": "JSON object: sample id -> label"},
        },
        "DatasetForm",
    ),
)
async def create_dataset(request: Request, once: OnceEach) -> Any:
    """Takes an upload and starts its ingestion."""
    with multipart.landing(once.state.settings.scratch) as landing:
        form, upload = await _receive(request, once.state, landing)
        return await to_thread.run_sync(_create, once, form, upload)


@router.get("", response_model=Page[DatasetOut])
def list_datasets(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Datasets, newest first."""
    rows, more = datasets.page(session, project, limit, after)
    return Page(data=[document(row) for row in rows], has_more=more)


@router.get("/{dataset_id}", response_model=DatasetOut)
def get_dataset(dataset_id: str, session: ReadSession, project: Project) -> Any:
    """One dataset."""
    return document(datasets.get(session, project, dataset_id))


@router.get("/{dataset_id}/problems", response_model=Page[ProblemOut])
def list_problems(
    dataset_id: str,
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, lt=2**31, description="Last seq of the previous page.")] = 0,
) -> Any:
    """Every finding, in the order of the upload."""
    rows, more = datasets.problems(session, project, dataset_id, limit, after)
    data = [
        ProblemOut(seq=row.seq, severity=row.severity, code=row.code, path=row.path, message=row.message, fix=row.fix)
        for row in rows
    ]
    return Page(data=data, has_more=more)


@router.get("/{dataset_id}/samples", response_model=Page[SampleOut])
def list_samples(
    dataset_id: str,
    state: Context,
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: After = None,
    split: Annotated[Literal["train", "val", "test"] | None, Query()] = None,
    label: Annotated[str | None, Query(max_length=1000)] = None,
) -> Any:
    """Samples of a ready dataset, in stored order."""
    dataset = datasets.ready(session, project, dataset_id)
    rows, more = samples.page(state.storage, dataset, limit, after, split=split, label=label)
    return Page(data=[SampleOut(**row) for row in rows], has_more=more)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, session: WriteSession, project: Project) -> None:
    """Removes a dataset that nothing uses."""
    session.info.setdefault(WASTE, []).extend(datasets.delete(session, project, dataset_id))


async def _receive(request: Request, state: State, landing: Path) -> tuple[DatasetForm, multipart.Part | None]:
    if media_type(request, "multipart/form-data", "application/json") == "application/json":
        body = from_json("body", await multipart.whole(request, state.settings.max_json_bytes))
        if isinstance(body, dict) and not body.keys() & {"upload_id", "base", "remove", "relabel"}:
            raise UnsupportedMediaType(
                "expected multipart/form-data with the upload as field `file`, or JSON that names an `upload_id` or a "
                "`base` to change; found JSON without; send it with -F name=NAME -F file=@data.zip"
            )
        return checked_json(DatasetForm, body), None
    parts = await multipart.read(request, state.settings.max_upload_bytes, landing)
    texts = text_fields(part for part in parts if part.filename is None)
    fields = {name: from_json(name, text) if name in ("remove", "relabel") else text for name, text in texts.items()}
    files = [part for part in parts if part.filename is not None]
    if not files and "upload_id" in fields:
        return checked(DatasetForm, fields), None
    if not files or files[0].name != "file" or "upload_id" in fields:
        names = ", ".join(part.name for part in parts[:10]) or "none"
        raise BadRequest(
            f"expected the upload as form field `file`, or an `upload_id` in its place; found fields {names}; send it "
            "with -F file=@data.zip",
            code="file_missing",
        )
    form = checked(DatasetForm, fields)
    await to_thread.run_sync(datasets.check_upload, landing)
    return form, files[0]


def _create(once: Once, form: DatasetForm, upload: multipart.Part | None) -> Response | DatasetOut:
    """Stores the archive, then one transaction; the archive is taken back unless a dataset was made of it.

    An upload that came in pieces is stored already, and changes hands in that transaction.
    """
    state, project, dataset_id = once.state, once.project, new_id("ds")
    archive = datasets.incoming(project, dataset_id) if upload else None

    def make(session: Session) -> tuple[DatasetOut, str]:
        new = _new(form, archive, upload.filename if upload else None, upload.size_bytes if upload else 0)
        if form.upload_id is not None:
            datasets.check_beginning_of(session, state.inbox, project, form.upload_id)
            taken = uploads.take(session, project, form.upload_id, dataset_id)
            new = _new(form, uploads.key(project, taken.id), taken.filename, taken.received_bytes)
        made = document(datasets.create(session, project, dataset_id, new))
        if archive is not None:
            waste.keep(session, archive)
        return made, f"/api/v1/datasets/{dataset_id}"

    out = None
    failpoints.reach("archive_received")
    try:
        if archive is not None and upload is not None and upload.path is not None:
            waste.reserve(state.database, archive)
            state.storage.put(archive, upload.path)
            failpoints.reach("archive_stored")
        out = once.answer(ROUTE, [form.model_dump(), upload and upload.sha256], make)
    finally:
        if not isinstance(out, DatasetOut) and archive is not None:
            waste.give_back(state.database, state.storage, archive)
    return out


def _new(form: DatasetForm, archive: str | None, filename: str | None, size_bytes: int) -> datasets.NewDataset:
    return datasets.NewDataset(
        name=form.name,
        archive=archive,
        filename=filename or "",
        size_bytes=size_bytes,
        task=form.task,
        format=form.format,
        # Of a child one that was not sent is not one that differs from its base's.
        seed=form.seed if "seed" in form.model_fields_set else None,
        base_id=form.base,
        remove=tuple(form.remove),
        relabel=form.relabel,
    )
