"""Backbones: the catalogue, and a user's own weights."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app import failpoints
from app.api import multipart
from app.api.deps import NAME, WASTE, Context, Limit, Page, Project, ReadSession, State, WriteSession, finish
from app.api.forms import UNLIMITED, checked, checked_json, form_body, from_json, media_type, text_fields
from app.api.problems import RESPONSES
from app.bodies import BODY
from app.db.models import UserBackbone
from app.errors import BadRequest, UnsupportedMediaType
from app.services import backbones, uploads, waste

router = APIRouter(prefix="/backbones", tags=["backbones"], responses=RESPONSES)
# `user/` goes before it, and both together fill the column.
OWN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,94}$"


class BackboneForm(BaseModel):
    """Everything of an upload but the file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=OWN_NAME)
    architecture: str = Field(max_length=200, description="A name of the catalogue.")


class BackboneFromVersion(BaseModel):
    """The JSON form: a network that a finished version has trained becomes the source of later transfers."""

    model_config = BODY

    name: str = Field(pattern=OWN_NAME)
    model: str = Field(pattern=NAME)
    version: int = Field(ge=1, lt=2**31, description="One whose job has changed the weights of its backbone.")


class BackboneFromUpload(BaseModel):
    """The JSON form of a checkpoint that came in pieces."""

    model_config = BODY

    name: str = Field(pattern=OWN_NAME)
    architecture: str = Field(max_length=200, description="A name of the catalogue.")
    upload_id: str = Field(max_length=40, description="A complete upload; used up.")


class InputOut(BaseModel):
    """What a backbone's input looks like."""

    height: int
    width: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class BackboneOut(BaseModel):
    """One source model."""

    name: str
    provider: str
    architecture: str
    num_params: int
    feature_dim: int
    input: InputOut
    licence: str
    paper: str
    recommended: bool
    available: bool
    text_tower: bool
    size_bytes: int | None


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
    failure: str | None
    created_at: datetime


def _out(known: backbones.Known) -> BackboneOut:
    backbone = known.backbone
    shape = backbone.preprocess
    return BackboneOut(
        name=backbone.name,
        provider=backbone.provider,
        architecture=backbone.architecture,
        num_params=backbone.num_params,
        feature_dim=backbone.feature_dim,
        input=InputOut(
            height=shape.height,
            width=shape.width,
            resize=shape.resize,
            interpolation=shape.interpolation,
            mean=shape.mean,
            std=shape.std,
        ),
        licence=backbone.licence,
        paper=backbone.paper,
        recommended=backbone.recommended,
        available=known.available,
        text_tower=backbone.text_tower,
        size_bytes=backbone.weights.size_bytes,
    )


def _own(row: UserBackbone) -> OwnBackboneOut:
    return OwnBackboneOut(
        id=row.id,
        name=row.name,
        architecture=row.document["architecture"],
        state=row.state,
        job_id=row.job_id,
        mapping=row.mapping,
        source=row.document.get("source"),
        taught_by=row.document.get("taught_by"),
        failure=row.failure_message,
        created_at=row.created_at,
    )


@router.get("", response_model=Page[BackboneOut])
def list_backbones(
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: Annotated[str | None, Query(max_length=200, description="Last name of the previous page.")] = None,
    recommended: bool | None = None,
    available: bool | None = None,
    provider: Annotated[str | None, Query(max_length=50, description="First part of the name.")] = None,
    search: Annotated[str | None, Query(max_length=100, description="Part of the name.")] = None,
) -> Any:
    """Own backbones, then the recommended ones, then the rest by name."""
    found = [
        known
        for known in backbones.every(session, project)
        if (recommended is None or known.backbone.recommended == recommended)
        and (available is None or known.available == available)
        and (provider is None or known.backbone.provider == provider)
        and (search is None or search.lower() in known.backbone.name.lower())
    ]
    if after is not None:
        names = [known.backbone.name for known in found]
        if after not in names:
            raise BadRequest(f"expected a name of the previous page; found {after!r}; ask for the first one again")
        found = found[names.index(after) + 1 :]
    # Only of the page: a document for each of some 1,900 takes 40 ms, during which nobody else is answered.
    return Page(data=[_out(known) for known in found[:limit]], has_more=len(found) > limit)


@router.get("/own/{name}", response_model=OwnBackboneOut)
def get_own_backbone(name: str, session: ReadSession, project: Project) -> Any:
    """A user's own weights: how far they are, and how their tensors were matched."""
    return _own(backbones.own(session, project, name))


@router.delete("/own/{name}", status_code=204)
def delete_own_backbone(name: str, session: WriteSession, project: Project) -> None:
    """Removes own weights that no waiting job may open and no version stands on."""
    session.info.setdefault(WASTE, []).extend(backbones.delete(session, project, name))


@router.get("/{provider}/{name}", response_model=BackboneOut)
def get_backbone(provider: str, name: str, session: ReadSession, project: Project) -> Any:
    """One backbone."""
    return _out(backbones.find(session, project, f"{provider}/{name}"))


@router.post(
    "",
    status_code=202,
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
        },
        "BackboneFromVersion",
        "BackboneFromUpload",
    ),
)
async def add_backbone(request: Request, response: Response, state: Context, project: Project) -> Any:
    """Takes a user's own checkpoint under a known architecture, or a finished version's network, and starts its check.

    A checkpoint comes as a form, or was uploaded before and is named in JSON: `{"name", "architecture", "upload_id"}`.
    A version is named in JSON: `{"name", "model", "version"}`.
    """
    if media_type(request, "multipart/form-data", "application/json") == "application/json":
        raw = b"".join([chunk async for chunk in multipart.limited(request, state.settings.max_json_bytes)])
        given = from_json("body", raw)
        if isinstance(given, dict) and not given.keys() & {"model", "version", "upload_id"}:
            raise UnsupportedMediaType(
                "expected multipart/form-data with the weights as field `file`, or JSON that names a `model` and a "
                "`version`, or an `upload_id`; found JSON without; send it with -F name=NAME -F architecture=NAME -F "
                "file=@weights"
            )
        body: BackboneFromUpload | BackboneFromVersion
        if isinstance(given, dict) and "upload_id" in given:
            body = checked_json(BackboneFromUpload, given)
            out = await to_thread.run_sync(_add_uploaded, state, project, body)
        else:
            body = checked_json(BackboneFromVersion, given)
            out = await to_thread.run_sync(_add_version, state, project, body)
        response.headers["Location"] = _location(body.name)
        return out
    with multipart.landing(state.settings.scratch) as landing:
        parts = await multipart.read(request, state.settings.max_upload_bytes, landing)
        fields = text_fields(part for part in parts if part.filename is None)
        upload = next((part for part in parts if part.filename is not None and part.size_bytes), None)
        missing = [name for name in ("name", "architecture") if not fields.get(name)]
        if upload is None or missing:
            found = ", ".join(missing) or "no file"
            raise BadRequest(f"expected form fields file, name and architecture; missing: {found}", code="file_missing")
        form = checked(BackboneForm, fields)
        out = await to_thread.run_sync(_add, state, project, form, landing)
    response.headers["Location"] = _location(form.name)
    return out


def _location(name: str) -> str:
    return f"/api/v1/backbones/own/{name}"


def _add_version(state: State, project: str, body: BackboneFromVersion) -> OwnBackboneOut:
    with state.database.session() as session:
        row = backbones.add_version(session, project, body.name, body.model, body.version)
        finish(state, session, _location(row.name))
        return _own(row)


def _add_uploaded(state: State, project: str, body: BackboneFromUpload) -> OwnBackboneOut:
    with state.database.session() as session:
        key = uploads.key(project, body.upload_id)
        row = backbones.add(session, project, body.name, body.architecture, key)
        uploads.take(session, project, body.upload_id, row.id)
        finish(state, session, _location(row.name))
        return _own(row)


def _add(state: State, project: str, form: BackboneForm, landing: Path) -> OwnBackboneOut:
    key = f"incoming/{project}/{uuid4().hex}"
    waste.reserve(state.database, key)
    out = None
    try:
        state.storage.put(key, landing)
        failpoints.reach("weights_stored")
        with state.database.session() as session:
            row = backbones.add(session, project, form.name, form.architecture, key)
            waste.keep(session, key)
            finish(state, session, _location(row.name))
            out = _own(row)
    finally:
        if out is None:
            waste.give_back(state.database, state.storage, key)
    return out
