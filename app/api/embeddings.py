"""Embeddings: images in, features out."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api import answers, images
from app.api.answers import Ask, AskQuery
from app.api.deps import Project
from app.api.direct import Direct
from app.api.forms import UNLIMITED, plain_type
from app.api.problems import RESPONSES, TOO_LATE
from app.artifact.precisions import Precision
from app.services.predictions import Found
from app.serving.call import Result

router = APIRouter(prefix="/models", tags=["predictions"], responses=RESPONSES, route_class=Direct)
BINARY = "application/octet-stream"
DTYPE = "<f4"


class EmbedOut(BaseModel):
    """Features in the order of the images."""

    model: str
    version: int
    domain: str | None
    alignment: str | None
    precision: Precision
    dim: int
    features: list[list[float]]


@router.post(
    "/{name}/embed",
    response_model=EmbedOut,
    max_body_size=UNLIMITED,
    openapi_extra=images.request_body(),
    responses={
        200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}, "description": "The features"},
        **TOO_LATE,
    },
)
async def embed(name: str, request: Request, project: Project, query: Annotated[AskQuery, Query()]) -> Any:
    """Features of images, as the model's head sees them: after the alignment where a `domain` is named.

    With `Accept: application/octet-stream` they come as float32, little-endian, row after row; header `X-Graft-Shape`
    has rows and columns.
    """
    ask = Ask.of(request, project, name, query, tells_features=True)
    found, result = await ask.all()
    if plain_type(request, "accept") == BINARY:
        return _bytes(found, result)
    return answers.json(
        found,
        result,
        {
            "model": ask.wanted.model,
            "version": found.version,
            "domain": ask.wanted.domain,
            "alignment": found.alignment,
            "precision": found.model.precision,
            "dim": result.features_ND.shape[1],
            "features": result.features_ND.tolist(),
        },
    )


def _bytes(found: Found, result: Result) -> Response:
    rows, columns = result.features_ND.shape
    headers = {"X-Graft-Shape": f"{rows},{columns}", **answers.described(found, result.timing)}
    return Response(result.features_ND.astype(DTYPE).tobytes(), headers=headers, media_type=BINARY)
