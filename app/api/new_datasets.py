"""`POST /datasets`: an archive in a form, an upload that came in pieces, or changes of another dataset."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app import failpoints
from app.api import large, multipart
from app.api.accepted import Once, OnceEach
from app.api.arrivals import Arrival, arriving
from app.api.datasets import DatasetOut, document
from app.api.forms import UNLIMITED, checked, checked_json, form_body, from_json, media_type, text_fields
from app.api.problems import RESPONSES
from app.db.base import new_id
from app.errors import BadRequest, UnsupportedMediaType
from app.services import datasets, uploads
from app.texts import NAME

router = APIRouter(prefix="/datasets", tags=["datasets"], responses=RESPONSES)
ROUTE = "POST /datasets"
ACCEPTED = 202
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


@router.post(
    "",
    status_code=ACCEPTED,
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
    settings = once.state.settings
    if media_type(request, "multipart/form-data", "application/json") == "application/json":
        raw = await multipart.whole(request, large.of_json(settings))
        return await to_thread.run_sync(_from_json, once, from_json("body", raw))
    dataset_id = new_id("ds")
    async with arriving(request, once, ROUTE, dataset_id) as arrival:
        parts = await multipart.read(request, large.of_files(settings), arrival.path, arrival.counted)
        return await to_thread.run_sync(_from_form, once, dataset_id, parts, arrival)


def _from_json(once: Once, given: Any) -> Response | DatasetOut:
    if isinstance(given, dict) and not given.keys() & {"upload_id", "base", "remove", "relabel"}:
        raise UnsupportedMediaType(
            "expected multipart/form-data with the upload as field `file`, or JSON that names an `upload_id` or a "
            "`base` to change; found JSON without; send it with -F name=NAME -F file=@data.zip"
        )
    return _without_file(once, new_id("ds"), checked_json(DatasetForm, given))


def _from_form(once: Once, dataset_id: str, parts: list[multipart.Part], arrival: Arrival) -> Response | DatasetOut:
    texts = text_fields(part for part in parts if part.filename is None)
    most = once.state.settings.max_json_values
    fields = {
        name: from_json(name, text, most) if name in ("remove", "relabel") else text for name, text in texts.items()
    }
    files = [part for part in parts if part.filename is not None]
    if not files and "upload_id" in fields:
        return _without_file(once, dataset_id, checked(DatasetForm, fields))
    if not files or files[0].name != "file" or "upload_id" in fields:
        names = ", ".join(part.name for part in parts[:10]) or "none"
        raise BadRequest(
            f"expected the upload as form field `file`, or an `upload_id` in its place; found fields {names}; send it "
            "with -F file=@data.zip",
            code="file_missing",
        )
    return _with_file(once, dataset_id, checked(DatasetForm, fields), files[0], arrival)


def _without_file(once: Once, dataset_id: str, form: DatasetForm) -> Response | DatasetOut:
    """One transaction, in which an upload that came in pieces, and is stored already, changes hands."""
    datasets.check_beginning_of(once.state.database, once.state.inbox, once.project, form.upload_id)

    def make(session: Session) -> tuple[DatasetOut, str]:
        new = _new(form)
        if form.upload_id is not None:
            taken = uploads.take(session, once.project, form.upload_id, dataset_id)
            new = _new(form, uploads.incoming(once.project, taken.id), taken.filename, taken.received_bytes)
        return _made(session, once.project, dataset_id, new)

    return once.answer(ROUTE, [form.model_dump(), None], make)


def _with_file(
    once: Once, dataset_id: str, form: DatasetForm, upload: multipart.Part, arrival: Arrival
) -> Response | DatasetOut:
    """Stores the archive, then one transaction."""
    asked = [form.model_dump(), upload.sha256]
    if (kept := arrival.answered(asked, ACCEPTED)) is not None:
        return kept
    datasets.check_upload(arrival.path)

    def make(session: Session) -> tuple[DatasetOut, str]:
        arrival.keep(session)
        return _made(session, once.project, dataset_id, _new(form, arrival.key, upload.filename, upload.size_bytes))

    failpoints.reach("archive_received")
    arrival.store()
    failpoints.reach("archive_stored")
    return once.answer(ROUTE, asked, make, ACCEPTED)


def _made(session: Session, project: str, dataset_id: str, new: datasets.NewDataset) -> tuple[DatasetOut, str]:
    return document(datasets.create(session, project, dataset_id, new)), f"/api/v1/datasets/{dataset_id}"


def _new(
    form: DatasetForm, archive: str | None = None, filename: str | None = None, size_bytes: int = 0
) -> datasets.NewDataset:
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
