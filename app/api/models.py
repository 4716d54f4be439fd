"""Models: versions, files, aliases."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field, model_validator

from app.api.deps import (
    BARE,
    WASTE,
    After,
    Context,
    Limit,
    Page,
    Project,
    ReadSession,
    UntilAnswered,
    WriteSession,
)
from app.api.files import Attachment
from app.api.problems import RESPONSES
from app.artifact import bundle
from app.artifact.spec import Spec
from app.bodies import BODY
from app.db.aliases import Alias
from app.db.models import Model, ModelVersion
from app.errors import NotFound
from app.services import aliases, compositions, models, rollouts
from app.serving import stored
from app.texts import NAME

router = APIRouter(prefix="/models", tags=["models"], responses=RESPONSES)

# Of one model, beside the model itself.
VERSIONS = 1000

Version = Annotated[int, Path(ge=1, lt=2**31)]
AliasName = Annotated[str, Path(pattern=NAME)]


class OriginOut(BaseModel):
    """Where a version came from that was not made here."""

    how: Literal["imported"]
    bundle_sha256: str = Field(description="Of the zip that was sent.")
    size_bytes: int


class VersionOut(BaseModel):
    """One version."""

    version: int
    job_id: str | None = Field(
        description="Null where no job made it: a class was added to another version, or a bundle imported."
    )
    created_at: datetime
    metrics: dict[str, float | int | None] = Field(
        description="Of a version with an `origin`, what the other side reported; not measured here."
    )
    origin: OriginOut | None = Field(description="Null where the version was made here.")


class ModelOut(BaseModel):
    """One model."""

    name: str
    aliases: dict[str, int]
    versions: list[VersionOut] = Field(description=f"The newest, up to {VERSIONS}.")
    has_more_versions: bool = Field(description="Whether there are older ones: see GET /models/{name}/versions.")
    created_at: datetime


class VersionDetail(VersionOut):
    """One version, and what its bundle says."""

    model: str
    files: list[str]
    spec: dict[str, Any]


class AliasIn(BaseModel):
    """Where an alias is to point."""

    model_config = BODY

    version: int = Field(ge=1, lt=2**31)
    canary: int | None = Field(None, ge=1, lt=2**31, description="A version that answers a `share` of the requests.")
    share: float | None = Field(None, gt=0, lt=1, description="Of the requests, for `canary`; X-Graft-Version tells.")
    shadow: int | None = Field(
        None, ge=1, lt=2**31, description="A version that is asked too; how often it agrees is in /metrics."
    )

    @model_validator(mode="after")
    def _canary_has_a_share(self) -> Self:
        if (self.canary is None) != (self.share is None):
            raise ValueError("expected canary and share together; found one of them; send both, or none")
        return self

    @model_validator(mode="after")
    def _others_are_tried(self) -> Self:
        """Beside itself a version is compared with itself, and the history says that another one was tried."""
        for name, other in (("canary", self.canary), ("shadow", self.shadow)):
            if other == self.version:
                raise ValueError(
                    f"expected another version as {name} than the one that it stands beside; found version {other} as "
                    f"both; name another one, or leave {name} out"
                )
        return self


class AliasOut(BaseModel):
    """Where an alias points."""

    alias: str
    version: int
    canary: int | None
    share: float | None
    shadow: int | None
    updated_at: datetime


class AliasChangeOut(BaseModel):
    """What an alias pointed at since when; null means removed."""

    id: str
    version: int | None
    canary: int | None
    share: float | None
    shadow: int | None
    at: datetime


def _alias(row: Alias) -> AliasOut:
    return AliasOut.model_validate(row, from_attributes=True)


def _version(row: ModelVersion) -> VersionOut:
    origin = None if row.origin is None else OriginOut(**row.origin)
    return VersionOut(
        version=row.version, job_id=row.job_id, created_at=row.created_at, metrics=row.metrics, origin=origin
    )


def _out(row: Model, versions: list[ModelVersion], aliases: dict[str, int]) -> ModelOut:
    return ModelOut(
        name=row.name,
        aliases=aliases,
        versions=[_version(version) for version in versions[:VERSIONS]],
        has_more_versions=len(versions) > VERSIONS,
        created_at=row.created_at,
    )


@router.get("", response_model=Page[ModelOut])
def list_models(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Models, newest first; `after` is a name."""
    rows, more = models.page(session, project, limit, after)
    ids = [row.id for row in rows]
    versions, aliases = models.versions(session, ids, VERSIONS + 1), models.aliases(session, ids)
    return Page(data=[_out(row, versions[row.id], aliases[row.id]) for row in rows], has_more=more)


@router.get("/{name}", response_model=ModelOut)
def get_model(name: str, session: ReadSession, project: Project) -> Any:
    """One model."""
    row = models.get(session, project, name)
    versions = models.versions(session, [row.id], VERSIONS + 1)[row.id]
    return _out(row, versions, models.aliases(session, [row.id])[row.id])


@router.delete("/{name}", status_code=204)
def delete_model(name: str, session: WriteSession, project: Project) -> None:
    """Removes a model with all its versions."""
    session.info.setdefault(WASTE, []).extend(models.delete(session, project, name))


@router.get("/{name}/versions", response_model=Page[VersionOut])
def list_versions(
    name: str,
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=1, lt=2**31, description="Last version of the previous page.")] = None,
) -> Any:
    """Versions of a model, newest first."""
    rows, more = models.version_page(session, project, name, limit, after)
    return Page(data=[_version(row) for row in rows], has_more=more)


@router.get("/{name}/versions/{version}", response_model=VersionDetail)
def get_version(name: str, version: Version, session: ReadSession, project: Project) -> Any:
    """One version: its metrics, files and spec."""
    row = models.version(session, project, name, version)
    files = sorted([*row.spec["files"], bundle.SPEC, compositions.MODEL])
    return VersionDetail(**_version(row).model_dump(), model=name, files=files, spec=row.spec)


@router.delete("/{name}/versions/{version}", status_code=204)
def delete_version(name: str, version: Version, session: WriteSession, project: Project) -> None:
    """Removes a version that no alias points at."""
    session.info.setdefault(WASTE, []).extend(models.delete_version(session, project, name, version))


@router.get("/{name}/versions/{version}/files/{file}", response_class=Response)
def get_file(
    name: str,
    version: Version,
    file: str,
    state: Context,
    session: ReadSession,
    project: Project,
    until: UntilAnswered,
) -> Any:
    """One file of the bundle, as an attachment. `model.onnx`, backbone and head in one, is composed on the way out."""
    row = models.version(session, project, name, version)
    spec = Spec.model_validate(row.spec)
    if file == compositions.MODEL:
        path = until.enter_context(compositions.composed(state.storage, state.settings.scratch, row))
    elif file == bundle.SPEC or file in spec.files:
        path = stored.fetch(state.storage, row.prefix, spec, file)
    else:
        names = ", ".join(sorted([*spec.files, bundle.SPEC, compositions.MODEL]))
        raise NotFound(f"expected one of {names}; found {file!r}")
    return Attachment(path, filename=file, media_type="application/octet-stream")


@router.put("/{name}/aliases/{alias}", response_model=AliasOut)
def put_alias(
    name: str, alias: AliasName, body: AliasIn, state: Context, session: WriteSession, project: Project
) -> Any:
    """Points an alias at a version; `production` is what `predict` takes by default.

    Another version can be tried beside it: a canary answers a share of the requests, a shadow is asked too and only
    compared. Calls that name a version or a domain are answered by the version alone.

    All of them are loaded and tried first; with one that cannot be served the alias means what it did.
    """
    target = aliases.Target(body.version, body.canary, body.share, body.shadow)
    rollouts.check(state.database, state.opened, state.engine, project, name, target)
    return _alias(aliases.point(session, project, name, alias, target))


@router.post("/{name}/aliases/{alias}/rollback", dependencies=[BARE], response_model=AliasOut)
def roll_alias_back(name: str, alias: AliasName, state: Context, session: WriteSession, project: Project) -> Any:
    """Ends the canary of an alias; of one without a canary, points it at the version that it meant before.

    Either way that version answers alone from then on, without canary or shadow, if it can be served.
    """
    with state.database.read() as reading:
        target = aliases.before(reading, project, name, alias)
    rollouts.check(state.database, state.opened, state.engine, project, name, target)
    return _alias(aliases.roll_back(session, project, name, alias, target))


@router.get("/{name}/aliases/{alias}", response_model=Page[AliasChangeOut])
def get_alias_history(
    name: str, alias: AliasName, session: ReadSession, project: Project, limit: Limit = 100, after: After = None
) -> Any:
    """What an alias pointed at, newest first."""
    rows, more = aliases.history(session, project, name, alias, limit, after)
    return Page(data=[AliasChangeOut.model_validate(row, from_attributes=True) for row in rows], has_more=more)


@router.delete("/{name}/aliases/{alias}", status_code=204)
def delete_alias(name: str, alias: AliasName, session: WriteSession, project: Project) -> None:
    """Takes an alias away."""
    aliases.remove(session, project, name, alias)
