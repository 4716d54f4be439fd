"""Drift: whether what a version is asked looks like what it was tested on."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.deps import Context, Project, ReadSession
from app.api.problems import RESPONSES
from app.services import domains, models
from app.serving.slots import Window
from app.texts import NAME

router = APIRouter(prefix="/models", tags=["predictions"], responses=RESPONSES)


class DriftQuery(BaseModel):
    """Which version, and since when."""

    version: int | None = Field(None, ge=1, lt=2**31)
    alias: str | None = Field(None, pattern=NAME)
    domain: str | None = Field(None, pattern=NAME, description="Calls that named this domain; else those without one.")
    window: Window = Field(
        "hour",
        description="The last hour, day or week, by slots of ten minutes, an hour or a day; or since the start, which "
        "is all that is kept.",
    )


class DistanceOut(BaseModel):
    """How far what is served is from the reference."""

    value: float = Field(description="PSI; deviations of the features; or the logarithm of a ratio of deviations.")
    by_chance: float = Field(description="What it is on average without drift, for so many images and items.")
    excess: float = Field(description="What is beyond chance.")
    p: float = Field(description="How likely one as large is without drift.")
    level: Literal["none", "moderate", "large"] = Field(description="Of the excess.")
    p_adjusted: float = Field(description="How likely it is that any of the distances is as extreme without drift.")
    drifted: bool = Field(description="Unlikely by chance, and at least moderate.")


class DistancesOut(BaseModel):
    """Those that could be taken."""

    scores: DistanceOut | None = None
    labels: DistanceOut | None = None
    shift: DistanceOut | None = None
    spread: DistanceOut | None = None


class ClassOut(BaseModel):
    """How often a class is predicted."""

    label: str
    share: float
    reference_share: float


class DriftOut(BaseModel):
    """One version in one window of time, as all services have seen it."""

    model: str
    version: int
    domain: str | None
    alignment: str | None
    window: Window
    since: datetime | None = Field(description="When the oldest slot begins in which there is an image.")
    is_whole: bool = Field(
        description="False where storage could not be read: then only what the service that answers still holds is in."
    )
    verdict: Literal["stable", "drift", "not_enough", "no_reference"]
    reasons: list[str]
    num_images: int = Field(description="Answered.")
    num_sampled: int = Field(description="Of these, looked at.")
    num_reference: int | None = Field(description="Test items behind the reference.")
    distances: DistancesOut
    frechet: float | None = Field(description="Between the features, over the reference's total variance; no level.")
    jensen_shannon: float | None = Field(description="Between the scores, in bits from 0 to 1; no level.")
    classes: list[ClassOut] = Field(description="Whose shares differ most.")


@router.get("/{name}/drift", response_model=DriftOut)
def get_drift(
    name: str, query: Annotated[DriftQuery, Query()], state: Context, session: ReadSession, project: Project
) -> Any:
    """Whether scores, predicted classes and features are spread as on the version's own test items.

    `verdict` is `drift` where a distance is both unlikely by chance and large enough to matter, `stable` where none is,
    `not_enough` below a number of images that `reasons` names, and `no_reference` for a version that brings none.
    """
    row = models.resolve(session, project, name, query.version, query.alias)
    bound = domains.resolve(session, project, name, row, query.domain) if query.domain else None
    alignment = bound.id if bound else None
    seen = state.observation.of(row, alignment, query.window)
    found = asdict(seen.drift)
    return {
        "model": name,
        "version": row.version,
        "domain": query.domain,
        "alignment": alignment,
        "window": query.window,
        "since": seen.since,
        "is_whole": seen.is_whole,
        "num_images": seen.num_images,
        "num_sampled": seen.num_sampled,
        "num_reference": seen.num_reference,
        **found,
    }
