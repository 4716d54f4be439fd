"""Predictions: images in, labels and scores out."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from app.api import answers, images, streams
from app.api.answers import Ask, AskQuery
from app.api.deps import Project
from app.api.direct import Direct
from app.api.forms import UNLIMITED
from app.api.problems import RESPONSES, TOO_LATE
from app.artifact.precisions import Precision
from app.services.predictions import Found
from app.serving import best

router = APIRouter(prefix="/models", tags=["predictions"], responses=RESPONSES, route_class=Direct)


class PredictQuery(AskQuery):
    """Which model, and what is told of each image."""

    top_k: int = Field(100, ge=1, le=100, description="Most classes in `scores`.")
    threshold: float | None = Field(None, ge=0, le=1, description="Below this score there is no label.")
    features: bool = Field(False, description="Whether each prediction brings its features.")


class ScoreOut(BaseModel):
    """One class and its probability."""

    label: str
    score: float


class PredictionOut(BaseModel):
    """What the model says of one image."""

    label: str | None = Field(description="The best class; null when its score is under `threshold`.")
    score: float
    scores: list[ScoreOut]
    features: list[float] | None = Field(None, description="What the head saw, with `features=true`.")


class PredictOut(BaseModel):
    """Predictions in the order of the images."""

    model: str
    version: int
    task: str
    domain: str | None = Field(None, description="The domain that was asked for.")
    alignment: str | None = Field(None, description="What the features passed through before the head.")
    precision: Precision = Field(description="Of the graph that answered.")
    predictions: list[PredictionOut]


@router.post(
    "/{name}/predict",
    response_model=PredictOut,
    max_body_size=UNLIMITED,
    openapi_extra=images.request_body(streams.MEDIA_TYPE),
    responses={200: {"content": {streams.MEDIA_TYPE: {"schema": {"type": "string"}}}}, **TOO_LATE},
)
async def predict(name: str, request: Request, project: Project, query: Annotated[PredictQuery, Query()]) -> Any:
    """Classifies images: multipart `file` (repeated), a raw image body, JSON `images`, or lines of NDJSON.

    With `Accept: application/x-ndjson` each prediction is a line with its `index` that goes out as soon as it is there;
    an image that cannot be used is a line with its `problem`. A body of that type has one image a line, `{"b64": ...}`
    or `{"url": ...}`, and any number of them.

    Header `Server-Timing` says how long decoding, waiting and computing took. What nobody waits for any more, since the
    connection was closed or `timeout` has passed, is not computed.
    """
    ask = Ask.of(request, project, name, query, tells_features=query.features)
    line = partial(_line, query)
    if streams.wanted(ask.request):
        return await streams.response(ask, line)
    found, result = await ask.all()
    return answers.json(
        found,
        result,
        {
            "model": ask.wanted.model,
            "version": found.version,
            "task": found.model.spec.task,
            "domain": ask.wanted.domain,
            "alignment": found.alignment,
            "precision": found.model.precision,
            "predictions": [line(found, *row) for row in zip(result.probabilities_NC, result.features_ND, strict=True)],
        },
    )


# No function of the endpoint's: its annotations would be worked out for each request.
def _line(query: PredictQuery, found: Found, probabilities_C: NDArray[Any], features_D: NDArray[Any]) -> dict[str, Any]:
    """What is said of one image."""
    item = best.rank(probabilities_C, found.model.spec.labels, query.top_k, query.threshold)
    known = {"label": item.label, "score": item.score, "scores": item.scores}
    return {**known, "features": features_D.tolist()} if query.features else known
