"""Files that jobs have made of a stored dataset. The jobs themselves are asked for with POST /jobs."""

from typing import Any

from fastapi import APIRouter, Response

from app import extract_jobs, predict_jobs
from app.api.deps import WASTE, Context, Project, ReadSession, State, WriteSession
from app.api.files import Attachment
from app.api.problems import RESPONSES
from app.services import job_files

router = APIRouter(prefix="/jobs", tags=["predictions"], responses=RESPONSES)
MEDIA_TYPES = {"parquet": "application/vnd.apache.parquet", "jsonl": "application/x-ndjson"}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}}
}


@router.get("/{job_id}/predictions", response_class=Response, responses=CONTENT)
def get_predictions(job_id: str, state: Context, session: ReadSession, project: Project) -> Any:
    """One row for each image, in the dataset's order, as an attachment; docs/serving.md names the columns."""
    return _attachment(state, session, project, job_id, predict_jobs.KIND)


@router.delete("/{job_id}/predictions", status_code=204)
def delete_predictions(job_id: str, session: WriteSession, project: Project) -> None:
    """Removes the file of a job that has succeeded; the job stays."""
    session.info.setdefault(WASTE, []).append(job_files.delete(session, project, job_id, predict_jobs.KIND))


@router.get("/{job_id}/features", response_class=Response, responses=CONTENT)
def get_features(job_id: str, state: Context, session: ReadSession, project: Project) -> Any:
    """One row for each image, in the dataset's order, as an attachment; docs/datasets.md names the columns."""
    return _attachment(state, session, project, job_id, extract_jobs.KIND)


@router.delete("/{job_id}/features", status_code=204)
def delete_features(job_id: str, session: WriteSession, project: Project) -> None:
    """Removes the file of a job that has succeeded; the job stays, and so do cached features."""
    session.info.setdefault(WASTE, []).append(job_files.delete(session, project, job_id, extract_jobs.KIND))


def _attachment(state: State, session: ReadSession, project: str, job_id: str, kind: str) -> Attachment:
    path, name = job_files.file(session, state.storage, project, job_id, kind)
    return Attachment(path, filename=f"{job_id}-{name}", media_type=MEDIA_TYPES[name.partition(".")[2]])
