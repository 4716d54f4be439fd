"""Prediction logs: turn one on, read what was written, take it away."""

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.api.deps import WASTE, Context, Project, ReadSession, UntilAnswered, WriteSession
from app.api.forms import plain_type
from app.api.problems import RESPONSES
from app.bodies import BODY
from app.db.logs import PredictionLog
from app.services import logs
from app.storage import Storage

router = APIRouter(prefix="/models", tags=["predictions"], responses=RESPONSES)
NDJSON, PARQUET = "application/x-ndjson", "application/vnd.apache.parquet"
BINARY = {"schema": {"type": "string", "format": "binary"}}


class LogIn(BaseModel):
    """What of a model's predictions is to be kept."""

    model_config = BODY

    share: float = Field(ge=0, le=1, description="Of the requests, drawn at random; 0 writes nothing more.")
    keep_days: int = Field(7, ge=1, le=3650, description="Full days (UTC) before today; older ones are removed.")
    images: bool = Field(False, description="Whether the images' bytes are kept too, to be labelled later.")


class LogOut(BaseModel):
    """A model's log."""

    model: str
    share: float
    keep_days: int
    images: bool
    updated_at: datetime
    days: list[str] = Field(description="Of which something is written, oldest first.")


def _out(name: str, row: PredictionLog, storage: Storage) -> LogOut:
    return LogOut(
        model=name,
        share=row.share,
        keep_days=row.keep_days,
        images=row.images,
        updated_at=row.updated_at,
        days=logs.days(storage, row),
    )


@router.put("/{name}/log", response_model=LogOut)
def put_log(name: str, body: LogIn, state: Context, session: WriteSession, project: Project) -> Any:
    """Keeps a share of the model's predictions: when, which version, by which alias and domain, label and scores.

    Off by default: what people send is theirs. Nothing waits for the log; what does not fit is dropped and counted.
    """
    row = logs.keep(session, project, name, body.share, body.keep_days, body.images)
    return _out(name, row, state.storage)


@router.get(
    "/{name}/log",
    response_model=LogOut,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}, PARQUET: BINARY}}},
)
def get_log(
    name: str,
    request: Request,
    state: Context,
    session: ReadSession,
    project: Project,
    until: UntilAnswered,
    day: Annotated[date | None, Query(description="In UTC. Without it, the log's settings and days.")] = None,
) -> Any:
    """The log's settings and days; or the records of a day, as an attachment: NDJSON, or Parquet by `Accept`.

    Parquet has the images' bytes where they were kept; NDJSON has their sha256.
    """
    row = logs.get(session, project, name)
    if day is None:
        return _out(name, row, state.storage)
    keys = logs.files(state.storage, row, day)
    write, kind, suffix = (logs.lines, NDJSON, "ndjson")
    if plain_type(request, "accept") == PARQUET:
        write, kind, suffix = (logs.parquet, PARQUET, "parquet")
    headers = {"Content-Disposition": f'attachment; filename="{name}-{day}.{suffix}"'}
    content = write(state.storage, keys)
    until.callback(content.close)
    return StreamingResponse(content, media_type=kind, headers=headers)


@router.delete("/{name}/log", status_code=204)
def delete_log(name: str, session: WriteSession, project: Project) -> None:
    """Turns the log off, and removes all that was written."""
    session.info.setdefault(WASTE, []).append(logs.remove(session, project, name))
