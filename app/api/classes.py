"""Classes of a served model: one more from a few images, as a new version."""

import hashlib
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, field_validator
from sqlalchemy.orm import Session

from app import texts
from app.api import held, large, multipart
from app.api.accepted import Once, OnceEach
from app.api.deps import State
from app.api.forms import UNLIMITED, checked, checked_json, form_body, from_json, media_type, text_fields
from app.api.images import FILES, ImageIn, aside, check_number, given, most_values
from app.api.problems import RESPONSES
from app.bodies import BODY
from app.db.models import ModelVersion
from app.errors import BadRequest
from app.services import class_checks, classes, models, publications, shared, waste
from app.texts import NAME

router = APIRouter(prefix="/models", tags=["models"], responses=RESPONSES)
ROUTE = "POST /models/{name}/classes"
CREATED = 201


class ClassIn(BaseModel):
    """The JSON form of a request."""

    model_config = BODY

    label: str = Field(min_length=1, max_length=100, description="Name of the new class.")
    images: list[ImageIn] = Field(min_length=1)

    @field_validator("label")
    @classmethod
    def _printable(cls, label: str) -> str:
        """Control characters, halves of surrogate pairs and line breaks are no part of a name."""
        if not label.strip() or not texts.is_printable(label):
            raise ValueError("expected a name of printable characters; found only spaces, or a control character")
        return label


class OldClassesOut(BaseModel):
    """How the classes that were there before fare, on stored features of their test items."""

    num_samples: int
    accuracy_before: float | None
    accuracy_after: float | None
    reason: str | None = Field(description="Why there is no accuracy; null where there is one.")


class ClassOut(BaseModel):
    """The new version."""

    model: str
    version: int
    base_version: int
    label: str
    num_images: int = Field(description="Different ones: the same bytes count once.")
    how: str = Field(description="centroid, imprinted or neighbours: the rule that made the class.")
    old_classes: OldClassesOut
    calibrated: bool
    metrics: dict[str, float | int | None] = Field(description="Empty until the new version is evaluated.")
    served_by_default: bool = Field(description="False where alias `production` points elsewhere: it is not moved.")
    warnings: list[str] = Field(
        description=f"Said where the old classes' accuracy fell by more than {class_checks.MAX_FALL}, with the way "
        "back; where the class has one image only; where an image was given twice. The version is served all the "
        "same: see `served_by_default`. Also in report.json and README.md of the version."
    )


@router.post(
    "/{name}/classes",
    status_code=CREATED,
    response_model=ClassOut,
    max_body_size=UNLIMITED,
    openapi_extra=form_body(
        ["label", "file"],
        {
            "label": {"type": "string", "minLength": 1, "maxLength": 100},
            "file": FILES,
        },
        "ClassIn",
    ),
)
async def add_class(
    name: str,
    request: Request,
    once: OnceEach,
    version: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    alias: Annotated[str | None, Query(pattern=NAME)] = None,
) -> Any:
    """Adds a class to a version from a few images, without training: a new version, which no alias points at yet.

    Where no alias `production` points elsewhere it is served at once, also when it has harmed the other classes: then
    `warnings` says so, and how the version before is served again. With `production` set, look before you move it.
    """
    label, images = await _receive(request, once.state)
    check_number(images, once.state)
    return await to_thread.run_sync(_add, once, name, (version, alias), label, images)


async def _receive(request: Request, state: State) -> tuple[str, list[bytes]]:
    limit = large.of_images(state.settings)
    if media_type(request, "multipart/form-data", "application/json") == "application/json":
        body = await multipart.whole(request, limit)
        wanted = await aside(len(body), lambda: checked_json(ClassIn, from_json("body", body, most_values(state))))
        check_number(wanted.images, state)
        return wanted.label, await given(wanted.images, state, held.of(request.scope))
    parts = await multipart.read(request, limit)
    images = [bytes(part.body) for part in parts if part.name == "file"]
    if not images:
        raise BadRequest(
            "expected images as form fields `file`; found none; send -F label=NAME -F file=@photo.jpg",
            code="file_missing",
        )
    fields = text_fields(part for part in parts if part.name != "file")
    return checked(ClassIn, {"images": [{"b64": ""}], **fields}).label, images


def _add(
    once: Once, name: str, wanted: tuple[int | None, str | None], label: str, images: list[bytes]
) -> Response | ClassOut:
    """The bundle is made without a transaction; one makes it a version, and else it is taken back."""
    state, project = once.state, once.project
    asked = (name, *wanted, label, [hashlib.sha256(image).hexdigest() for image in images])
    if (kept := once.before(ROUTE, asked, CREATED)) is not None:
        return kept
    with state.database.read() as session:
        base = models.resolve(session, project, name, *wanted)
    served = state.opened.version(base)
    class_checks.check(served.spec, label)
    made = classes.make(
        state.storage,
        state.settings.scratch,
        state.engine,
        served,
        base,
        name,
        label,
        images,
        partial(waste.reserved, state.database, state.storage),
    )

    def make(session: Session) -> tuple[ClassOut, str]:
        waste.keep(session, made.version.prefix)
        shared.keep(session, state.storage, shared.of_spec(made.version.spec))
        row = publications.append(session, name, base, wanted, made.version)
        default = models.resolve(session, project, name, None, None)
        return _out(name, base, row, made, label, default.id == row.id), f"/api/v1/models/{name}/versions/{row.version}"

    out = None
    try:
        out = once.answer(ROUTE, asked, make, CREATED)
    finally:
        if not isinstance(out, ClassOut):
            waste.give_back(state.database, state.storage, made.version.prefix)
    return out


def _out(
    name: str,
    base: ModelVersion,
    row: ModelVersion,
    made: classes.Made,
    label: str,
    served_by_default: bool,
) -> ClassOut:
    old = made.old_classes
    return ClassOut(
        model=name,
        version=row.version,
        base_version=base.version,
        label=label,
        num_images=made.num_images,
        how=made.how,
        old_classes=OldClassesOut(
            num_samples=old.num_samples,
            accuracy_before=old.accuracy_before,
            accuracy_after=old.accuracy_after,
            reason=old.reason,
        ),
        calibrated=False,
        metrics={},
        served_by_default=served_by_default,
        warnings=made.warnings,
    )
