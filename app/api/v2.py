"""The Open Inference Protocol v2 over HTTP, for clients that exist already."""

import time
from typing import Any, TypeVar

from anyio import from_thread, to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api import held, large, multipart, waiting
from app.api.deps import Context, Project, State
from app.api.forms import UNLIMITED
from app.api.oip import compression, control, http, infer
from app.api.oip.documents import (
    RESPONSES,
    InferResponseOut,
    LiveOut,
    ModelIndexOut,
    ModelMetadataOut,
    ModelReadyOut,
    ModelsOut,
    ReadyOut,
    ServerMetadataOut,
)
from app.api.oip.messages import InferRequest, InferResponse
from app.api.problems import unsupported
from app.bodies import BODY, check_values
from app.services import repository

M = TypeVar("M", bound=BaseModel)
router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=RESPONSES)
MODEL = "/models/{name}"
VERSION = "/models/{name}/versions/{version}"


class IndexIn(BaseModel):
    """Which versions are listed: all, or those that are ready."""

    model_config = BODY

    ready: bool = False


class LoadIn(BaseModel):
    """Parameters of a load or unload."""

    model_config = BODY

    parameters: dict[str, Any] = Field(default_factory=dict)


@router.get("")
def server_metadata() -> ServerMetadataOut:
    """Who answers, and which extensions are spoken."""
    return ServerMetadataOut(**repository.server())


@router.get("/health/live")
def server_live() -> LiveOut:
    """The process answers."""
    return LiveOut(live=True)


@router.get("/health/ready")
def server_ready(state: Context) -> ReadyOut:
    """Predictions can be made; 503 says what is missing."""
    control.check_ready(state)
    return ReadyOut(ready=True)


@router.get("/models")
def list_models(state: Context, project: Project) -> ModelsOut:
    """Names of all models."""
    return ModelsOut(models=sorted({row["name"] for row in control.index(state, project)}))


@router.get("/models/stats")
def statistics(state: Context, project: Project) -> dict[str, Any]:
    """Counts and times of all models since the process began."""
    return control.statistics(state, project)


@router.get(VERSION)
@router.get(MODEL)
def model_metadata(state: Context, project: Project, name: str, version: str = "") -> ModelMetadataOut:
    """The tensors that a model takes and gives. `encoded`: whole image files. `images`: pixels in the model's size."""
    return ModelMetadataOut(**control.metadata(state, project, name, version))


@router.get(VERSION + "/ready")
@router.get(MODEL + "/ready")
async def model_ready(state: Context, project: Project, name: str, version: str = "") -> ModelReadyOut:
    """The model is there and says what it should of its stored sample; one that was never tried is loaded for it."""
    await control.check_model_ready(state, project, name, version)
    return ModelReadyOut(name=name, ready=True)


@router.get(VERSION + "/config")
@router.get(MODEL + "/config")
def model_config(state: Context, project: Project, name: str, version: str = "") -> dict[str, Any]:
    """A model's configuration, with its labels among the parameters."""
    return control.config(state, project, name, version)


@router.get(VERSION + "/stats")
@router.get(MODEL + "/stats")
def model_statistics(state: Context, project: Project, name: str, version: str = "") -> dict[str, Any]:
    """Counts and times of a model's versions since the process began."""
    return control.statistics(state, project, name, version)


INFER: dict[str, Any] = {
    "response_model": InferResponseOut,
    "responses": unsupported(RESPONSES),
    "max_body_size": UNLIMITED,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferRequestIn"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}


def _optional(schema: str) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}}


@router.post(VERSION + "/infer", **INFER)
@router.post(MODEL + "/infer", **INFER)
async def model_infer(name: str, request: Request, state: Context, project: Project, version: str = "") -> Response:
    """Classifies images: JSON, JSON with raw tensors behind it, or one image file as the whole body.

    With header `Inference-Header-Content-Length`, so many bytes are JSON and the inputs' raw bytes follow; with 0 the
    body is one encoded image. The body may come in gzip or deflate, and the answer goes so to those who accept it.
    """
    arrived = time.monotonic()
    limit, headers = large.of_images(state.settings), request.headers
    packed, hold = await multipart.whole(request, limit), held.of(request.scope)

    def take(number: int) -> None:
        # In a thread, and what is held is counted on the event loop.
        from_thread.run_sync(hold.take, number)

    def read() -> InferRequest:
        encoding = headers.get("content-encoding", "").strip().lower()
        body = compression.inflate(packed, encoding, limit.num_bytes, take)
        return http.read(name, version, body, headers.get(http.HEADER_LENGTH), take)

    answer = await infer.infer(state, project, read, lambda future: waiting.settled(request, future), arrived)
    return await to_thread.run_sync(_written, answer, headers.get("accept-encoding", ""))


def _written(answer: InferResponse, accepted: str) -> Response:
    body, json_length = http.write(answer)
    headers = {"X-Graft-Version": answer.version, "Vary": "Accept-Encoding"}
    if json_length is not None:
        headers[http.HEADER_LENGTH] = str(json_length)
    body, encoding = compression.deflate(body, accepted)
    if encoding is not None:
        headers["Content-Encoding"] = encoding
    return Response(body, 200, headers, "application/json" if json_length is None else "application/octet-stream")


@router.post("/repository/index", max_body_size=UNLIMITED, openapi_extra=_optional("IndexIn"))
async def repository_index(request: Request, state: Context, project: Project) -> list[ModelIndexOut]:
    """Every version of every model, with the reason where one is not ready."""
    body = await _body(IndexIn, request, state)
    return [ModelIndexOut(**row) for row in await to_thread.run_sync(control.index, state, project, body.ready)]


LOAD: dict[str, Any] = {
    "max_body_size": UNLIMITED,
    "openapi_extra": _optional("LoadIn"),
    "responses": unsupported(RESPONSES),
    # Without a body, as the protocol has it.
    "response_class": Response,
}


@router.post("/repository/models/{name}/load", **LOAD)
async def repository_model_load(name: str, request: Request, state: Context, project: Project) -> Response:
    """Brings the version that is served by default into memory, so that the next call does not wait for it."""
    body = await _body(LoadIn, request, state)
    await control.load(state, project, name, body.parameters)
    return Response()


@router.post("/repository/models/{name}/unload", **LOAD)
async def repository_model_unload(name: str, request: Request, state: Context, project: Project) -> Response:
    """Takes a model's versions out of memory; they can still be called, and are loaded again then."""
    await _body(LoadIn, request, state)
    await to_thread.run_sync(control.unload, state, project, name)
    return Response()


async def _body(model: type[M], request: Request, state: State) -> M:
    """A body that may be left out; its content type does not matter, since clients do not send one."""
    body = await multipart.whole(request, large.of_json(state.settings))
    check_values("body", body, state.settings.max_json_values, " (GRAFT_MAX_JSON_VALUES)")
    return http.parse(model, body or b"{}")
