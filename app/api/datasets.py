"""Datasets: look, list problems and samples, delete; `new_datasets` makes them."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.deps import WASTE, After, Context, Limit, Page, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.db.models import Dataset
from app.services import datasets, samples

router = APIRouter(prefix="/datasets", tags=["datasets"], responses=RESPONSES)


class ClassOut(BaseModel):
    """One class."""

    name: str
    num_samples: int


class Failure(BaseModel):
    """Why something did not work."""

    code: str
    message: str

    @classmethod
    def of(cls, code: str | None, message: str | None) -> Self | None:
        """As a row has it; None where nothing has failed."""
        return cls(code=code, message=message or "") if code else None


class DatasetOut(BaseModel):
    """One dataset."""

    id: str
    name: str
    task: str
    modality: str
    base: str | None
    state: Literal["ingesting", "ready", "invalid"]
    num_samples: int
    classes: list[ClassOut]
    splits: dict[str, int]
    num_problems: int
    digest: str | None
    seed: int
    size_bytes: int = Field(
        description="As it is stored; as it was sent, with its base, while it is being ingested; 0 if invalid."
    )
    job_id: str | None
    created_at: datetime
    failure: Failure | None


class ProblemOut(BaseModel):
    """One finding: what, where, and how to mend it."""

    seq: int
    severity: Literal["error", "warning"]
    code: str
    path: str | None
    message: str
    fix: str


class SampleOut(BaseModel):
    """One sample."""

    id: str
    path: str
    label: str | float | list[str] | None
    labels: dict[str, str | float | list[str] | None] | None = Field(
        description="By column, in a dataset with several."
    )
    split: Literal["train", "val", "test"]
    sha256: str
    width: int
    height: int


def document(row: Dataset) -> DatasetOut:
    """The document of a row."""
    return DatasetOut(
        id=row.id,
        name=row.name,
        task=row.task,
        modality=row.modality,
        base=row.base_id,
        state=row.state,
        num_samples=row.num_samples,
        classes=[ClassOut(**item) for item in row.classes],
        splits=row.splits,
        num_problems=row.num_problems,
        digest=row.digest,
        seed=row.seed,
        size_bytes=row.size_bytes,
        job_id=row.job_id,
        created_at=row.created_at,
        failure=Failure.of(row.failure_code, row.failure_message),
    )


@router.get("", response_model=Page[DatasetOut])
def list_datasets(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Datasets, newest first."""
    rows, more = datasets.page(session, project, limit, after)
    return Page(data=[document(row) for row in rows], has_more=more)


@router.get("/{dataset_id}", response_model=DatasetOut)
def get_dataset(dataset_id: str, session: ReadSession, project: Project) -> Any:
    """One dataset."""
    return document(datasets.get(session, project, dataset_id))


@router.get("/{dataset_id}/problems", response_model=Page[ProblemOut])
def list_problems(
    dataset_id: str,
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, lt=2**31, description="Last seq of the previous page.")] = 0,
) -> Any:
    """Every finding, in the order of the upload."""
    rows, more = datasets.problems(session, project, dataset_id, limit, after)
    data = [
        ProblemOut(seq=row.seq, severity=row.severity, code=row.code, path=row.path, message=row.message, fix=row.fix)
        for row in rows
    ]
    return Page(data=data, has_more=more)


@router.get("/{dataset_id}/samples", response_model=Page[SampleOut])
def list_samples(
    dataset_id: str,
    state: Context,
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: After = None,
    split: Annotated[Literal["train", "val", "test"] | None, Query()] = None,
    label: Annotated[str | None, Query(max_length=1000)] = None,
) -> Any:
    """Samples of a ready dataset, in stored order."""
    dataset = datasets.ready(session, project, dataset_id)
    rows, more = samples.page(state.storage, dataset, limit, after, split=split, label=label)
    return Page(data=[SampleOut(**row) for row in rows], has_more=more)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, session: WriteSession, project: Project) -> None:
    """Removes a dataset that nothing uses."""
    session.info.setdefault(WASTE, []).extend(datasets.delete(session, project, dataset_id))
