"""The lineage of a version: what it comes from, and which of its test items that had met before."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.api.deps import Context, Project, ReadSession
from app.api.problems import RESPONSES
from app.services import lineage

router = APIRouter(prefix="/models", tags=["models"], responses=RESPONSES)


class NodeOut(BaseModel):
    """One thing that the version comes from."""

    what: Literal["version", "job", "dataset", "base", "source", "backbone", "alignment"]
    id: str = Field(description="`model/version` for versions, the name for backbones.")
    digest: str | None = Field(description="sha256 as it was when it was used; of a version, that of its spec.json.")
    of: str | None = Field(description="Id of the node that was made of it; null for the version itself.")
    present: bool = Field(description="Whether it is still there, unchanged.")
    details: dict[str, Any]


BY_COPY = "Other bytes of the same picture: the hash, and the small pictures or the features."
LOOK_ALIKE = "Further ones whose pHash is within 4 bits, which alone is no sign of a copy. Not counted as met."


class SeenOut(BaseModel):
    """One place where test items were met; kinds of signs are null where the version is older than they."""

    what: str = Field(description="dataset, source, unlabelled or class_images.")
    id: str
    backbone: str | None = Field(description="The own backbone that had met them; null for the version's own job.")
    num_items: int
    num_by_id: int | None = None
    num_by_sha256: int | None = None
    num_by_phash: int | None = None
    num_by_copy: int | None = Field(None, description=BY_COPY)
    num_look_alike: int | None = Field(None, description=LOOK_ALIKE)


class ItemsOut(BaseModel):
    """The test items; null where the version is older than such traces."""

    num_test: int | None
    num_seen_before: int | None = Field(description="Their labels surely taught the version or the backbones under it.")
    num_by_id: int | None = None
    num_by_sha256: int | None = None
    num_by_phash: int | None = None
    num_by_copy: int | None = Field(None, description=BY_COPY)
    num_look_alike: int | None = Field(None, description=LOOK_ALIKE)
    seen_in: list[SeenOut]
    num_seen_without_labels: int | None = Field(description="Fitted to as images alone, as adaptations are.")
    seen_without_labels_in: list[SeenOut]


class LineageOut(BaseModel):
    """Where a version comes from."""

    model: str
    version: int
    chain: list[NodeOut]
    items: ItemsOut
    warnings: list[str] = Field(description="Said where test items were met before.")
    unknown: str | None = Field(description="Why the trace may not be whole; null where it is.")


@router.get("/{name}/versions/{version}/lineage", response_model=LineageOut)
def get_lineage(
    name: str, version: Annotated[int, Path(ge=1, lt=2**31)], state: Context, session: ReadSession, project: Project
) -> Any:
    """The chain of a version through job, data, backbone and alignments; and the trace of its test items."""
    found = lineage.of_version(session, state.storage, project, name, version)
    return LineageOut(
        model=name,
        version=version,
        chain=[NodeOut(**asdict(node)) for node in found.chain],
        items=ItemsOut(**found.items),
        warnings=found.warnings,
        unknown=found.unknown,
    )
