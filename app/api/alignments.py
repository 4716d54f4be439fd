"""Alignments: fitted feature transforms, and the methods that fit them."""

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app import alignments as catalogue
from app.alignments import LAYER, AnyAlignment
from app.api.accepted import Accepted
from app.api.datasets import Failure
from app.api.deps import WASTE, After, Context, Limit, Page, Project, ReadSession, WriteSession
from app.api.files import Attachment
from app.api.problems import RESPONSES
from app.artifact import alignment as artifact
from app.db.alignments import Alignment
from app.services import alignments

router = APIRouter(prefix="/alignments", tags=["alignments"], responses=RESPONSES)


class AlignmentMethodOut(BaseModel):
    """One method and the JSON Schema of the body that asks for it."""

    method: str
    summary: str
    paper: str
    paired: bool
    json_schema: dict[str, Any]


class Dims(BaseModel):
    """Widths of the features that an alignment takes and gives."""

    taken: int
    given: int


class AlignmentOut(BaseModel):
    """One alignment. It moves features of `target` under `from_backbone` to those of `source` under `backbone`."""

    id: str
    number: int
    method: str
    state: Literal["fitting", "ready", "failed"]
    source: str
    target: str
    backbone: str
    from_backbone: str
    layer: str
    backbone_digest: str | None
    digest: str | None = Field(description="sha256 of alignment.onnx.")
    dims: Dims | None
    recipe: dict[str, Any]
    job_id: str | None
    result: dict[str, Any] | None = Field(
        description="What was learned, and what it changed on held-out items; `warnings` of `affine` tell of few "
        "pairs, and of features that it amplifies more than tenfold."
    )
    failure: Failure | None
    created_at: datetime
    finished_at: datetime | None


def _out(row: Alignment) -> AlignmentOut:
    recipe = row.recipe
    return AlignmentOut(
        id=row.id,
        number=row.number,
        method=recipe["method"],
        state=row.state,
        source=recipe["source"],
        target=recipe["target"] or recipe["source"],
        backbone=row.backbone,
        from_backbone=recipe.get("from_backbone") or row.backbone,
        layer=LAYER,
        backbone_digest=row.backbone_digest,
        digest=row.files[artifact.GRAPH]["sha256"] if row.files else None,
        dims=Dims(**row.result["dims"]) if row.result else None,
        recipe=recipe,
        job_id=row.job_id,
        result=row.result,
        failure=Failure.of(row.failure_code, row.failure_message),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


@router.post("", status_code=202, response_model=AlignmentOut)
def create_alignment(
    body: AnyAlignment, accept: Accepted, state: Context, session: WriteSession, project: Project
) -> Any:
    """Fits an alignment; see GET /api/v1/alignments/methods."""

    def make() -> AlignmentOut:
        return _out(alignments.create(session, project, body, state.settings.offline))

    return accept.answer("POST /alignments", body.model_dump(), make, "/api/v1/alignments/{id}")


@router.get("", response_model=Page[AlignmentOut])
def list_alignments(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Alignments, newest first."""
    rows, more = alignments.page(session, project, limit, after)
    return Page(data=[_out(row) for row in rows], has_more=more)


@router.get("/methods", response_model=dict[str, list[AlignmentMethodOut]])
def list_alignment_methods() -> Any:
    """Every method: defaults, bounds, help, paper. Recipes of jobs are at GET /api/v1/recipes."""
    rows = [
        AlignmentMethodOut(
            method=name,
            summary=method.summary,
            paper=method.paper,
            paired=method.paired,
            json_schema=method.model_json_schema(),
        )
        for name, method in catalogue.METHODS.items()
    ]
    return {"data": rows}


@router.get("/{alignment_id}", response_model=AlignmentOut)
def get_alignment(alignment_id: str, session: ReadSession, project: Project) -> Any:
    """One alignment, with what was learned and what it changed."""
    return _out(alignments.get(session, project, alignment_id))


@router.delete("/{alignment_id}", status_code=204)
def delete_alignment(alignment_id: str, session: WriteSession, project: Project) -> None:
    """Removes an alignment that no domain is bound to."""
    session.info.setdefault(WASTE, []).extend(alignments.delete(session, project, alignment_id))


@router.get("/{alignment_id}/files/{file}", response_class=Attachment)
def get_alignment_file(alignment_id: str, file: str, state: Context, session: ReadSession, project: Project) -> Any:
    """`alignment.onnx` (features -> aligned) or `alignment.safetensors` (alpha, offset) for stored vectors."""
    path = alignments.file_path(state.storage, alignments.get(session, project, alignment_id), file)
    return Attachment(path, filename=file, media_type="application/octet-stream")
