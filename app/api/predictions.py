"""Predictions: images in, labels and scores out."""

import base64
import binascii
import time
from collections.abc import Sequence
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.api import answers, multipart
from app.api.deps import NAME, Context, Project, State
from app.api.forms import checked_json, from_json, media_type
from app.api.problems import RESPONSES
from app.bodies import BODY
from app.errors import BadRequest, TooLarge, Unprocessable
from app.services import predictions
from app.serving import best

router = APIRouter(prefix="/models", tags=["predictions"], responses=RESPONSES)
UNLIMITED = 2**62
ACCEPTED = ("multipart/form-data", "application/json", "image/*", "application/octet-stream")


class ImageIn(BaseModel):
    """One image."""

    model_config = BODY

    b64: str = Field(description="The file's bytes in base64.")


class PredictIn(BaseModel):
    """The JSON form of a request."""

    model_config = BODY

    images: list[ImageIn] = Field(min_length=1)


class ScoreOut(BaseModel):
    """One class and its probability."""

    label: str
    score: float


class PredictionOut(BaseModel):
    """What the model says of one image."""

    label: str | None = Field(description="The best class; null when its score is under `threshold`.")
    score: float
    scores: list[ScoreOut]


class PredictOut(BaseModel):
    """Predictions in the order of the images."""

    model: str
    version: int
    task: str
    domain: str | None = Field(None, description="The domain that was asked for.")
    alignment: str | None = Field(None, description="What the features passed through before the head.")
    predictions: list[PredictionOut]


@router.post(
    "/{name}/predict",
    response_model=PredictOut,
    max_body_size=UNLIMITED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    }
                },
                "application/json": {"schema": {"$ref": "#/components/schemas/PredictIn"}},
                "image/*": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def predict(
    name: str,
    request: Request,
    response: Response,
    state: Context,
    project: Project,
    version: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    alias: Annotated[str | None, Query(pattern=NAME)] = None,
    domain: Annotated[str | None, Query(pattern=NAME, description="Where the images come from.")] = None,
    top_k: Annotated[int, Query(ge=1, le=100, description="Most classes in `scores`.")] = 100,
    threshold: Annotated[float | None, Query(ge=0, le=1, description="Below this score there is no label.")] = None,
    timeout: Annotated[float | None, Query(gt=0, le=3600, description="Seconds until the answer is useless.")] = None,
) -> PredictOut:
    """Classifies images: multipart `file` (repeated), a raw image body, or JSON `images`.

    Header `Server-Timing` says how long decoding, waiting and computing took. What nobody waits for any more, since the
    connection was closed or `timeout` has passed, is not computed.
    """
    deadline = time.monotonic() + timeout if timeout is not None else None
    state.engine.check_room()
    images = await _images(request, state)
    check_number(images, state)
    wanted = predictions.Wanted(name, version, alias, domain)
    found = await to_thread.run_sync(_find, state, project, wanted)
    future = state.statistics.watch(found.version_id, state.engine.submit(found.model, images, deadline))
    result = await answers.wait(request, future)
    response.headers["X-Graft-Version"] = str(found.version)
    response.headers["Server-Timing"] = answers.server_timing(result.timing)
    if found.alignment is not None:
        response.headers["X-Graft-Alignment"] = found.alignment
    labels = found.model.spec.labels
    return PredictOut(
        model=name,
        version=found.version,
        task=found.model.spec.task,
        domain=domain,
        alignment=found.alignment,
        predictions=[_out(best.rank(row, labels, top_k, threshold)) for row in result.probabilities_NC],
    )


def _find(state: State, project: str, wanted: predictions.Wanted) -> predictions.Found:
    with state.database.read() as session:
        return predictions.find(session, state.opened, project, wanted)


def _out(item: best.Prediction) -> PredictionOut:
    scores = [ScoreOut(label=score.label, score=score.score) for score in item.scores]
    return PredictionOut(label=item.label, score=item.score, scores=scores)


async def _images(request: Request, state: State) -> list[bytes]:
    """The request's images in their order, whichever way they came."""
    limit = state.settings.max_predict_bytes
    kind = media_type(request, *ACCEPTED)
    if kind == "multipart/form-data":
        parts = await multipart.read(request, limit)
        images = [bytes(part.body) for part in parts if part.name == "file"]
        if not images:
            raise BadRequest(
                "expected images as form fields `file`; found none; send -F file=@photo.jpg", code="file_missing"
            )
    elif kind == "application/json":
        wanted = checked_json(PredictIn, from_json("body", await read_body(request, limit)))
        images = from_base64(wanted.images)
    else:
        images = [await read_body(request, limit)]
    return images


def check_number(images: Sequence[bytes], state: State) -> None:
    """Refuses more images than one request may bring.

    Raises:
        TooLarge: code too_many_images.
    """
    most = state.settings.max_predict_images
    if len(images) > most:
        raise TooLarge(
            f"expected at most {most} images; found {len(images)}; send less at once", code="too_many_images"
        )


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is larger than the limit.
    """
    body = bytearray()
    async for chunk in multipart.limited(request, limit):
        body += chunk
    return bytes(body)


def from_base64(given: Sequence[ImageIn]) -> list[bytes]:
    """The bytes of each image.

    Raises:
        Unprocessable: one is not base64; its place is named.
    """
    images = []
    for index, image in enumerate(given):
        try:
            images.append(base64.b64decode(image.b64, validate=True))
        except (binascii.Error, ValueError) as error:
            raise Unprocessable(f"expected base64 in images/{index}/b64; found {error}") from error
    return images
