"""Versions that travel: the bundle out and in, and the folders that other systems load."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal
from uuid import uuid4

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api import large, multipart
from app.api.accepted import Once, OnceEach
from app.api.arrivals import Arrival, arriving
from app.api.deps import WASTE, Context, Project, ReadSession, State, UntilAnswered
from app.api.forms import UNLIMITED, checked, checked_json, form_body, from_json, media_type, text_fields
from app.api.large import Limit
from app.api.models import OriginOut
from app.api.problems import RESPONSES
from app.artifact import archive
from app.artifact import spec as specs
from app.bodies import BODY
from app.db.models import ModelVersion
from app.db.uploads import Upload
from app.errors import BadRequest, TooLarge
from app.services import (
    compositions,
    exports,
    imports,
    mlflow,
    models,
    publications,
    shared,
    stored_bytes,
    uploads,
    waste,
)
from app.texts import NAME

router = APIRouter(prefix="/models", tags=["models"], responses=RESPONSES)
ROUTE = "POST /models/{name}/versions"
CREATED = 201
MAX_BUNDLE_BYTES = archive.MAX_BYTES

Version = Annotated[int, Path(ge=1, lt=2**31)]
ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}


class BundleForm(BaseModel):
    """What stands beside the file."""

    model_config = ConfigDict(extra="forbid")

    allow_label_change: bool = Field(False, description="Publish although the model's versions have other labels.")


class BundleFromUpload(BaseModel):
    """The JSON form of a bundle that came in pieces."""

    model_config = BODY

    upload_id: str = Field(max_length=40, description="A complete upload; used up.")
    allow_label_change: bool = Field(False, description="Publish although the model's versions have other labels.")


class ChecksOut(BaseModel):
    """What of the bundle was compared here, and how far apart it was."""

    num_images: int = Field(description="Made-up images that the graphs ran on.")
    head_max_abs: float = Field(description="head.onnx against weights.safetensors: largest difference.")
    num_predictions: int = Field(description="Stored predictions that the head was asked for again.")
    predictions_mean_abs: float | None = Field(description="Mean difference from them; null where there are none.")
    sample_max_abs: float | None = Field(
        description="Both graphs against the scores of its sample: largest difference; null where it has none."
    )


class ImportOut(BaseModel):
    """The new version."""

    model: str
    version: int
    task: str
    num_labels: int
    origin: OriginOut
    metrics: dict[str, float | int | None] = Field(description="As the other side reported them; not measured here.")
    metrics_from: Literal["origin"] = "origin"
    checks: ChecksOut
    served_by_default: bool = Field(description="False where alias `production` points elsewhere: it is not moved.")


@router.get("/{name}/versions/{version}/bundle", response_class=StreamingResponse, responses=ZIP)
def get_bundle(
    name: str, version: Version, state: Context, session: ReadSession, project: Project, until: UntilAnswered
) -> StreamingResponse:
    """The whole version as one zip, for `POST .../versions` of another Graft; the same bytes each time."""
    row = models.version(session, project, name, version)
    return _zip(exports.whole(state.storage, row), f"{name}-{version}-bundle.zip", until)


@router.get("/{name}/versions/{version}/repository", response_class=StreamingResponse, responses=ZIP)
def get_repository(
    name: str, version: Version, state: Context, session: ReadSession, project: Project, until: UntilAnswered
) -> StreamingResponse:
    """The version as a zip that other model servers load: `NAME/config.pbtxt`, `NAME/VERSION/model.onnx`, labels."""
    row = models.version(session, project, name, version)
    model = until.enter_context(compositions.composed(state.storage, state.settings.scratch, row))
    return _zip(exports.repository(row, name, model), f"{name}-{version}.zip", until)


@router.get("/{name}/versions/{version}/mlflow", response_class=StreamingResponse, responses=ZIP)
def get_mlflow(
    name: str, version: Version, state: Context, session: ReadSession, project: Project, until: UntilAnswered
) -> StreamingResponse:
    """The version as a zip of an MLflow model folder with the flavors `onnx` and `python_function`."""
    row = models.version(session, project, name, version)
    model = until.enter_context(compositions.composed(state.storage, state.settings.scratch, row))
    return _zip(mlflow.folder(row, name, model), f"{name}-{version}-mlflow.zip", until)


def _zip(files: Mapping[str, bytes | FilePath], filename: str, until: ExitStack) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    content = archive.stream(files)
    # Of a client that goes away nothing is left to the garbage collector, which would close the zip within a file.
    until.callback(content.close)
    return StreamingResponse(content, headers=headers, media_type="application/zip")


@router.post(
    "/{name}/versions",
    status_code=CREATED,
    response_model=ImportOut,
    max_body_size=UNLIMITED,
    openapi_extra=form_body(
        ["file"],
        {
            "file": {"type": "string", "format": "binary", "description": "A bundle, as downloaded."},
            "allow_label_change": {"type": "boolean", "default": False},
        },
        "BundleFromUpload",
    ),
)
async def import_version(name: Annotated[str, Path(pattern=NAME)], request: Request, once: OnceEach) -> Any:
    """Takes a bundle that another Graft made as the model's next version; the model is made when it is new.

    Every file is looked at, and the graphs run, in a process of its own before anything is stored. What is wrong is
    said, and nothing is left. Where no alias `production` points elsewhere the version is served at once.
    """
    settings = once.state.settings
    if media_type(request, "multipart/form-data", "application/json") == "application/json":
        raw = await multipart.whole(request, large.of_json(settings))
        body = checked_json(BundleFromUpload, from_json("body", raw))
        return await to_thread.run_sync(_import_uploaded, once, name, body)
    async with arriving(request, once, ROUTE, uuid4().hex) as arrival:
        limit = min(large.of_files(settings), Limit(MAX_BUNDLE_BYTES), key=lambda one: one.num_bytes)
        parts = await multipart.read(request, limit, arrival.path, arrival.counted)
        files = [part for part in parts if part.filename is not None]
        if not files or files[0].name != "file":
            raise BadRequest(
                "expected a bundle as form field `file`; found none; send it with -F file=@bundle.zip",
                code="file_missing",
            )
        form = checked(BundleForm, text_fields(part for part in parts if part.filename is None))
        return await to_thread.run_sync(_import_posted, once, name, files[0], form.allow_label_change, arrival)


def _import_posted(
    once: Once, name: str, upload: multipart.Part, allowed: bool, arrival: Arrival
) -> Response | ImportOut:
    asked = (name, upload.sha256, allowed)
    if (kept := arrival.answered(asked, CREATED)) is not None:
        return kept
    return _import(once, name, upload, allowed, asked, arrival=arrival)


def _import_uploaded(once: Once, name: str, body: BundleFromUpload) -> Response | ImportOut:
    """The same of an upload that came in pieces; one that is refused stays there.

    Once used it is there for a while only, and the answer to the same request for longer.
    """
    asked = (name, body.upload_id, body.allow_label_change)
    if (kept := once.before(ROUTE, asked, CREATED)) is not None:
        return kept
    with once.state.database.read() as session:
        row = uploads.get(session, once.project, body.upload_id)
    part = multipart.Part("file", row.filename, sha256=row.sha256 or "", size_bytes=row.size_bytes or 0)
    return _import(once, name, part, body.allow_label_change, asked, uploaded=row)


def _fetched(state: State, row: Upload) -> FilePath:
    uploads.check_complete(row)
    if row.received_bytes > MAX_BUNDLE_BYTES:
        raise TooLarge(f"expected a bundle of at most {MAX_BUNDLE_BYTES} bytes; found {row.received_bytes}")
    return state.storage.fetch(uploads.incoming(row.project_id, row.id))


def _import(
    once: Once,
    name: str,
    upload: multipart.Part,
    allowed: bool,
    asked: tuple[object, ...],
    *,
    uploaded: Upload | None = None,
    arrival: Arrival | None = None,
) -> Response | ImportOut:
    """Judged without a transaction; one makes the bundle a version, and else it is taken back."""
    state, project = once.state, once.project
    path = upload.path if uploaded is None else _fetched(state, uploaded)
    assert path is not None
    with shared.tried(state.database, state.storage) as graphs:
        with imports.judged(state.storage, state.settings.scratch, path) as found:
            with state.database.read() as session:
                publications.check_labels(session, project, name, found.spec.task, found.spec.labels, allowed)
            # Bytes count once: as what came, until they count as what is made of it.
            if arrival is not None:
                arrival.give_back()
            made = _store(once, found, uploaded.received_bytes if uploaded else 0, graphs)

        def make(session: Session) -> tuple[ImportOut, str]:
            if uploaded is not None:
                uploads.take(session, project, uploaded.id, f"{name} version")
                session.info.setdefault(WASTE, []).append(uploads.incoming(project, uploaded.id))
            shared.keep(session, state.storage, shared.of_spec(made.spec))
            origin = OriginOut(how="imported", bundle_sha256=upload.sha256, size_bytes=upload.size_bytes)
            waste.keep(session, made.prefix)
            row = publications.admit(session, project, name, made, allowed, origin.model_dump())
            default = models.resolve(session, project, name, None, None)
            answer = _out(name, row, origin, found.checks, default.id == row.id)
            return answer, f"/api/v1/models/{name}/versions/{row.version}"

        out = None
        try:
            out = once.answer(ROUTE, asked, make, CREATED)
        finally:
            if not isinstance(out, ImportOut):
                waste.give_back(state.database, state.storage, made.prefix)
        return out


def _store(once: Once, found: imports.Judged, counted_bytes: int, graphs: set[str]) -> publications.NewVersion:
    """Reserves what of the bundle does not count yet, and puts it into storage, with a graph that it brings."""
    state, spec = once.state, specs.document(found.spec)
    with state.database.read() as session:
        size_bytes = stored_bytes.of_version(session, once.project, spec)
    if (graph := stored_bytes.brought(spec)) is not None:
        graphs.add(graph["key"])
    reserved = partial(waste.reserved, state.database, state.storage)
    return imports.store(state.storage, found, once.project, max(0, size_bytes - counted_bytes), reserved)


def _out(name: str, row: ModelVersion, origin: OriginOut, checks: dict[str, Any], served_by_default: bool) -> ImportOut:
    return ImportOut(
        model=name,
        version=row.version,
        task=row.spec["task"],
        num_labels=len(row.spec["labels"]),
        origin=origin,
        metrics=row.metrics,
        checks=ChecksOut(**checks),
        served_by_default=served_by_default,
    )
