"""Uploads in pieces: via tus through the service, or in parts that the client puts into the object store itself."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api import headers, large, multipart, tus, upload_bodies
from app.api.deps import After, Context, Limit, Page, Project, ReadSession, State, WriteSession, finish
from app.api.forms import UNLIMITED, checked_json, from_json, plain_type
from app.api.problems import RESPONSES, unsupported
from app.bodies import BODY, FROM_LIST
from app.db.base import now
from app.db.uploads import Upload
from app.errors import BadRequest, UnsupportedMediaType
from app.inbox import Part
from app.services import upload_completion, upload_parts, uploads
from app.services.receiving import Receiver
from app.services.upload_leases import Desk

router = APIRouter(prefix="/uploads", tags=["uploads"], responses=RESPONSES)
MIN_PART_BYTES, MAX_PART_BYTES = 5 * 2**20, 5 * 2**30
DEFAULT_PART_BYTES = 64 * 2**20
MAX_PARTS = 10_000
# An object store takes no longer time for its URLs.
MAX_URL_SECONDS = 7 * 86_400
TUS_BODY = {"requestBody": {"content": {tus.BODY: {"schema": {"type": "string", "format": "binary"}}}}}
CREATE_BODY = {
    "requestBody": {
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/UploadIn"}},
            tus.BODY: {"schema": {"type": "string", "format": "binary"}},
        }
    }
}


class UploadIn(BaseModel):
    """How an upload begins without the headers of tus."""

    model_config = BODY

    via: Literal["tus", "s3"] = Field(
        "tus", description="`s3`: the client puts parts into the object store, at URLs that the answer names."
    )
    size_bytes: int | None = Field(None, ge=0, lt=2**62, description="Of the whole file; `tus` can tell it later.")
    filename: str | None = Field(None, max_length=1000)
    part_bytes: int = Field(
        DEFAULT_PART_BYTES,
        ge=MIN_PART_BYTES,
        le=MAX_PART_BYTES,
        description="Size of each part but the last; `s3` only.",
    )


class PartDone(BaseModel):
    """A part that was put into the object store."""

    model_config = BODY

    number: int = Field(ge=1, le=MAX_PARTS)
    etag: str = Field(max_length=200, description="What the object store answered, with or without quotes.")


class CompleteIn(BaseModel):
    """What an upload is verified by."""

    model_config = BODY

    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$", description="Of the whole file, in hexadecimal.")
    parts: Annotated[tuple[PartDone, ...], FROM_LIST] | None = Field(
        None, max_length=MAX_PARTS, description="`s3` only."
    )


class PartOut(BaseModel):
    """Where one part goes."""

    number: int
    size_bytes: int
    url: str = Field(
        description="PUT the part's bytes there, all `size_bytes` of them (Content-Length is signed), without further "
        "headers; the answer's ETag is wanted later."
    )
    etag: str | None = Field(description="Of the part that is there already.")


class PartsOut(BaseModel):
    """Every part of an upload, in order."""

    data: list[PartOut]
    urls_expire_at: datetime


class UploadOut(BaseModel):
    """One upload."""

    id: str
    state: Literal["receiving", "received", "complete", "used"] = Field(
        description="`received`: all is here, and no sha256 was verified yet. `used`: something was made of it."
    )
    via: Literal["tus", "s3"]
    filename: str | None
    size_bytes: int | None = Field(description="Null until it is told.")
    received_bytes: int = Field(description="Durably here; via `s3` the object store knows, see `parts`.")
    sha256: str | None = Field(description="Once it is verified.")
    used_by: str | None = Field(description="What was made of it.")
    created_at: datetime
    expires_at: datetime = Field(
        description="When it is removed, unless more of it comes before; via `s3`, unless it is completed before."
    )


class BegunOut(UploadOut):
    """A new upload."""

    parts: PartsOut | None = Field(description="`s3` only.")


def _document(row: Upload) -> UploadOut:
    return UploadOut(**_fields(row))


def _fields(row: Upload) -> dict[str, Any]:
    return {name: getattr(row, name) for name in UploadOut.model_fields}


def _desk(state: State) -> Desk:
    keep = timedelta(seconds=state.settings.upload_keep_seconds)
    return Desk(state.database, state.inbox, keep, state.settings.max_upload_bytes)


@router.options("/{upload_id}", status_code=204)
@router.options("", status_code=204)
async def describe_uploads(state: Context, response: Response) -> None:
    """What of tus is spoken here: `Tus-Version`, `Tus-Extension`, `Tus-Max-Size`, `Tus-Checksum-Algorithm`."""
    response.headers.update(tus.abilities(state.settings.max_upload_bytes))


@router.post(
    "",
    status_code=201,
    response_model=BegunOut,
    max_body_size=UNLIMITED,
    openapi_extra=CREATE_BODY,
    responses=unsupported(RESPONSES),
)
async def create_upload(request: Request, response: Response, state: Context, project: Project) -> Any:
    """Begins an upload: with the headers of tus (and with bytes, if there are any), or with JSON."""
    kind, body_bytes = plain_type(request, "content-type"), headers.body_bytes(request.scope)
    if kind == "application/json":
        raw = await multipart.whole(request, large.of_json(state.settings))
        new = _new(checked_json(UploadIn, from_json("body", raw)))
    else:
        tus.check_version(request)
        if kind not in ("", tus.BODY) and (body_bytes or "transfer-encoding" in request.headers):
            raise UnsupportedMediaType(
                f"expected no body, one of content type {tus.BODY}, or application/json; found {kind}; send the file's "
                "bytes as the first of these"
            )
        text, filename = tus.metadata(request)
        new = uploads.NewUpload(size_bytes=tus.length(request), filename=filename, tus_metadata=text)
    checksum = tus.checksum(request)
    row = await to_thread.run_sync(_create, state, project, new)
    if new.via == uploads.TUS and kind == tus.BODY:
        receiver = Receiver(_desk(state), project, row.id, 0, num_bytes=body_bytes, checksum=checksum)
        row = await upload_bodies.first(request, state, row, receiver)
    elif new.via == uploads.TUS and new.size_bytes == 0:
        row = await to_thread.run_sync(upload_bodies.nothing, Receiver(_desk(state), project, row.id, 0))
    parts = await to_thread.run_sync(_parts, state, row) if new.via == uploads.S3 else None
    response.headers.update({**tus.headers(row), "Location": _location(row)})
    return BegunOut(**_fields(row), parts=parts)


@router.get("", response_model=Page[UploadOut])
def list_uploads(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Uploads that are kept, newest first."""
    rows, more = uploads.page(session, project, limit, after)
    return Page(data=[_document(row) for row in rows], has_more=more)


@router.get("/{upload_id}", response_model=UploadOut)
def get_upload(upload_id: str, request: Request, response: Response, session: ReadSession, project: Project) -> Any:
    """One upload; its headers, which HEAD gives as well, are those of tus: `Upload-Offset` says where to go on."""
    tus.check_version(request, required=False)
    row = uploads.get(session, project, upload_id)
    response.headers.update(tus.headers(row))
    return _document(row)


@router.get("/{upload_id}/parts", response_model=PartsOut)
def list_parts(upload_id: str, state: Context, session: ReadSession, project: Project) -> Any:
    """New URLs for the parts of an upload via `s3`, and which of them are there: what a client goes on from."""
    row = uploads.get(session, project, upload_id)
    upload_parts.check_awaits_parts(row)
    return _parts(state, row)


@router.patch("/{upload_id}", status_code=204, max_body_size=UNLIMITED, openapi_extra=TUS_BODY)
async def write_upload(upload_id: str, request: Request, response: Response, state: Context, project: Project) -> None:
    """Takes bytes at `Upload-Offset`; when the connection breaks, those that came are kept."""
    tus.check_version(request)
    tus.check_body_type(request)
    receiver = Receiver(
        _desk(state),
        project,
        upload_id,
        tus.offset(request),
        size_bytes=tus.number(request, "Upload-Length"),
        num_bytes=headers.body_bytes(request.scope),
        checksum=tus.checksum(request),
    )
    row = await upload_bodies.received(request, receiver)
    response.headers.update(tus.headers(row))


@router.delete("/{upload_id}", status_code=204)
def delete_upload(upload_id: str, request: Request, state: Context, session: WriteSession, project: Project) -> None:
    """Removes an upload and its bytes; a request that writes at the moment ends."""
    tus.check_version(request, required=False)
    upload_bodies.delete(state, session, project, upload_id)


@router.post("/{upload_id}/complete", response_model=UploadOut)
def complete_upload(upload_id: str, wanted: CompleteIn, state: Context, project: Project) -> Any:
    """Reads all of it and compares the sha256. From then on it can be used, once, by its id: `upload_id`."""
    given = None if wanted.parts is None else [Part(part.number, part.etag, 0) for part in wanted.parts]
    return _document(upload_completion.complete(_desk(state), project, upload_id, wanted.sha256.lower(), given))


def _new(wanted: UploadIn) -> uploads.NewUpload:
    filename = tus.filename(wanted.filename or "")
    if wanted.via == uploads.TUS:
        return uploads.NewUpload(size_bytes=wanted.size_bytes, filename=filename)
    if wanted.size_bytes is None:
        raise BadRequest("expected size_bytes with `via: s3`, since it says how many parts there are; found none")
    if wanted.size_bytes > wanted.part_bytes * MAX_PARTS:
        raise BadRequest(
            f"expected at most {MAX_PARTS} parts; found {wanted.size_bytes} bytes in parts of {wanted.part_bytes}; "
            "choose larger parts"
        )
    return uploads.NewUpload(uploads.S3, wanted.size_bytes, filename, None, wanted.part_bytes)


def _create(state: State, project: str, new: uploads.NewUpload) -> Upload:
    desk = _desk(state)
    with upload_parts.started(state.inbox, project, new) as begun, state.database.session() as session:
        row = uploads.create(session, state.inbox, project, begun, desk.most_bytes, desk.keep)
        finish(state, session, _location(row))
        return row


def _location(row: Upload) -> str:
    return f"{tus.PATH}/{row.id}"


def _parts(state: State, row: Upload) -> PartsOut:
    sizes = upload_parts.sizes(row)
    held = uploads.held(row)
    there = {part.number: part.etag for part in state.inbox.parts(held) or []}
    # No URL outlives the upload: bytes that it took then would be lost.
    seconds = max(1, int(min(MAX_URL_SECONDS, (row.expires_at - now()).total_seconds())))
    data = [
        PartOut(
            number=number,
            size_bytes=size,
            url=state.inbox.part_url(held, number, size, seconds),
            etag=there.get(number),
        )
        for number, size in enumerate(sizes, 1)
    ]
    return PartsOut(data=data, urls_expire_at=now() + timedelta(seconds=seconds))
