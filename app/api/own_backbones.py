"""A user's own weights: sent as a form, in pieces, or taken out of a finished version; checked, mapped, given up."""

from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session as SqlSession

from app import failpoints
from app.api import large, multipart
from app.api.accepted import Once, OnceEach
from app.api.arrivals import Arrival, arriving
from app.api.datasets import Failure
from app.api.deps import WASTE, Project, ReadSession, WriteSession
from app.api.forms import UNLIMITED, checked, checked_json, form_body, from_json, media_type, text_fields
from app.api.problems import RESPONSES
from app.backbones import InputChanges
from app.bodies import BODY
from app.db.models import UserBackbone
from app.errors import BadRequest, UnsupportedMediaType
from app.services import backbones, own_backbones, uploads
from app.texts import NAME

router = APIRouter(prefix="/backbones", tags=["backbones"], responses=RESPONSES)
ROUTE = "POST /backbones"
ACCEPTED = 202
# `user/` goes before it, and both together fill the column.
OWN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,94}$"
INPUT = "What the weights were trained on, where that is not the architecture's own input."


class BackboneForm(BaseModel):
    """Everything of an upload but the file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=OWN_NAME)
    architecture: str = Field(max_length=200, description="A name of the catalogue.")
    input: InputChanges = Field(InputChanges(), description=INPUT)


class BackboneFromUpload(BaseModel):
    """The JSON form of a checkpoint that came in pieces."""

    model_config = BODY

    name: str = Field(pattern=OWN_NAME)
    architecture: str = Field(max_length=200, description="A name of the catalogue.")
    upload_id: str = Field(max_length=40, description="A complete upload; used up.")
    input: InputChanges = Field(InputChanges(), description=INPUT)


class BackboneFromVersion(BaseModel):
    """The JSON form: a network that a finished version has trained becomes the source of later transfers."""

    model_config = BODY

    name: str = Field(pattern=OWN_NAME)
    model: str = Field(pattern=NAME)
    version: int = Field(ge=1, lt=2**31, description="One whose job has changed the weights of its backbone.")


class OwnBackboneOut(BaseModel):
    """A user's own weights while they are checked and mapped."""

    id: str
    name: str
    architecture: str
    state: Literal["checking", "ready", "invalid"]
    job_id: str | None
    mapping: dict[str, Any] | None
    source: dict[str, Any] | None = Field(description="The version that it came out of; null for an upload.")
    taught_by: list[dict[str, Any]] | None = Field(
        description="Datasets that it has learned from here, once it is ready; null for an upload."
    )
    failure: Failure | None
    created_at: datetime


@router.get("/own/{name}", response_model=OwnBackboneOut)
def get_own_backbone(name: str, session: ReadSession, project: Project) -> Any:
    """A user's own weights: how far they are, and how their tensors were matched."""
    return _out(own_backbones.own(session, project, name))


@router.delete("/own/{name}", status_code=204)
def delete_own_backbone(name: str, session: WriteSession, project: Project) -> None:
    """Removes own weights that no waiting job may open and no version stands on."""
    session.info.setdefault(WASTE, []).extend(own_backbones.delete(session, project, name))


@router.post(
    "",
    status_code=ACCEPTED,
    response_model=OwnBackboneOut,
    max_body_size=UNLIMITED,
    openapi_extra=form_body(
        ["file", "name", "architecture"],
        {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "safetensors, or a state dict of torch.save",
            },
            "name": {"type": "string", "pattern": OWN_NAME},
            "architecture": {"type": "string", "description": "A name of the catalogue."},
            "input": {"type": "string", "description": "JSON object, as `input` of BackboneFromUpload."},
        },
        "BackboneFromVersion",
        "BackboneFromUpload",
    ),
)
async def add_backbone(request: Request, once: OnceEach) -> Any:
    """Takes a user's own checkpoint under a known architecture, or a finished version's network, and starts its check.

    A checkpoint comes as a form, or was uploaded before and is named in JSON: `{"name", "architecture", "upload_id"}`.
    A version is named in JSON: `{"name", "model", "version"}`.
    """
    settings = once.state.settings
    if media_type(request, "multipart/form-data", "application/json") == "application/json":
        raw = await multipart.whole(request, large.of_json(settings))
        return await to_thread.run_sync(_from_json, once, from_json("body", raw))
    async with arriving(request, once, ROUTE, uuid4().hex) as arrival:
        parts = await multipart.read(request, large.of_files(settings), arrival.path, arrival.counted)
        texts = text_fields(part for part in parts if part.filename is None)
        upload = next((part for part in parts if part.filename is not None and part.size_bytes), None)
        missing = [name for name in ("name", "architecture") if not texts.get(name)]
        if upload is None or missing:
            found = ", ".join(missing) or "no file"
            raise BadRequest(f"expected form fields file, name and architecture; missing: {found}", code="file_missing")
        most = settings.max_json_values
        fields = {name: from_json(name, text, most) if name == "input" else text for name, text in texts.items()}
        return await to_thread.run_sync(_from_form, once, checked(BackboneForm, fields), upload, arrival)


def _from_json(once: Once, given: Any) -> Response | OwnBackboneOut:
    if isinstance(given, dict) and not given.keys() & {"model", "version", "upload_id"}:
        raise UnsupportedMediaType(
            "expected multipart/form-data with the weights as field `file`, or JSON that names a `model` and a "
            "`version`, or an `upload_id`; found JSON without; send it with -F name=NAME -F architecture=NAME -F "
            "file=@weights"
        )
    if isinstance(given, dict) and "upload_id" in given:
        return _from_upload(once, checked_json(BackboneFromUpload, given))
    return _from_version(once, checked_json(BackboneFromVersion, given))


def _from_version(once: Once, body: BackboneFromVersion) -> Response | OwnBackboneOut:
    def make(session: SqlSession) -> tuple[OwnBackboneOut, str]:
        return _made(own_backbones.add_version(session, once.project, body.name, body.model, body.version))

    return once.answer(ROUTE, [body.model_dump()], make)


def _from_upload(once: Once, body: BackboneFromUpload) -> Response | OwnBackboneOut:
    def make(session: SqlSession) -> tuple[OwnBackboneOut, str]:
        # Its bytes count once: no longer as an upload's, before they count as the backbone's.
        taken = uploads.take(session, once.project, body.upload_id, body.name)
        file = own_backbones.Checkpoint(uploads.incoming(once.project, taken.id), taken.received_bytes, body.input)
        row = own_backbones.add(session, once.project, body.name, body.architecture, file)
        taken.used_by = row.id
        return _made(row)

    return once.answer(ROUTE, [body.model_dump()], make)


def _from_form(once: Once, form: BackboneForm, upload: multipart.Part, arrival: Arrival) -> Response | OwnBackboneOut:
    """Stores the file, then one transaction."""
    asked = [form.model_dump(), upload.sha256]
    if (kept := arrival.answered(asked, ACCEPTED)) is not None:
        return kept
    file = own_backbones.Checkpoint(arrival.key, upload.size_bytes, form.input)

    def make(session: SqlSession) -> tuple[OwnBackboneOut, str]:
        arrival.keep(session)
        return _made(own_backbones.add(session, once.project, form.name, form.architecture, file))

    arrival.store()
    failpoints.reach("weights_stored")
    return once.answer(ROUTE, asked, make, ACCEPTED)


def _made(row: UserBackbone) -> tuple[OwnBackboneOut, str]:
    return _out(row), backbones.place(row)


def _out(row: UserBackbone) -> OwnBackboneOut:
    # Refusals that an older release has written have no code.
    code = row.failure_message and (row.failure_code or "weights_unavailable")
    return OwnBackboneOut(
        id=row.id,
        name=row.name,
        architecture=row.document["architecture"],
        state=row.state,
        job_id=row.job_id,
        mapping=row.mapping,
        source=row.document.get("source"),
        taught_by=row.document.get("taught_by"),
        failure=Failure.of(code, row.failure_message),
        created_at=row.created_at,
    )
