"""Predictions that a job has made over a stored dataset, as a file. The job itself is asked for with POST /jobs."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from app.api.deps import WASTE, Context, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.services import predict_jobs

router = APIRouter(prefix="/jobs", tags=["predictions"], responses=RESPONSES)
MEDIA_TYPES = {"parquet": "application/vnd.apache.parquet", "jsonl": "application/x-ndjson"}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}}
}


@router.get("/{job_id}/predictions", response_class=Response, responses=CONTENT)
def get_predictions(job_id: str, state: Context, session: ReadSession, project: Project) -> Any:
    """One row for each image, in the dataset's order, as an attachment; docs/serving.md names the columns."""
    path, name = predict_jobs.file(session, state.storage, project, job_id)
    kind = name.partition(".")[2]
    return FileResponse(path, filename=f"{job_id}-{name}", media_type=MEDIA_TYPES[kind])


@router.delete("/{job_id}/predictions", status_code=204)
def delete_predictions(job_id: str, session: WriteSession, project: Project) -> None:
    """Removes the file of a job that has succeeded; the job stays."""
    session.info.setdefault(WASTE, []).append(predict_jobs.delete(session, project, job_id))
