"""The log of a job: in pages, or as a stream that follows it to its end."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from app.api import waiting
from app.api.deps import Context, Limit, Page, Project, ReadSession, State
from app.api.problems import RESPONSES
from app.db.base import now
from app.db.models import JobEvent
from app.services import jobs
from app.states import FINAL

router = APIRouter(prefix="/jobs", tags=["jobs"], responses=RESPONSES)
STREAM_POLL_SECONDS = 0.25
MAX_EVENT_ID = 2**31 - 1
STREAM_HEARTBEAT_SECONDS = 10.0


class _Told(BaseModel):
    """What a stream tells of a job; it has an id where it is an entry of the log."""

    id: int | None = None
    at: datetime
    level: Literal["debug", "info", "warning", "error"]
    type: Literal["log", "progress", "metric", "state"]
    message: str
    data: dict[str, Any]


class EventOut(_Told):
    """One entry of a job's log."""

    id: int


def _event(row: JobEvent) -> EventOut:
    return EventOut(id=row.seq, at=row.at, level=row.level, type=row.type, message=row.message, data=row.data)


@router.get(
    "/{job_id}/events",
    response_model=Page[EventOut],
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "The job has ended, and there is nothing behind `Last-Event-ID`."},
    },
)
def list_events(
    job_id: str,
    request: Request,
    state: Context,
    session: ReadSession,
    project: Project,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, lt=2**31, description="Last id that was seen.")] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Any:
    """The log: a JSON page, or a live stream for `Accept: text/event-stream` that ends with the job.

    204 to a stream that is taken up again (`Last-Event-ID`) behind the last entry of a job that has ended: browsers
    then stop asking.
    """
    job = jobs.get(session, project, job_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        start = _event_id(last_event_id, after)
        if last_event_id is not None and job.state in FINAL and start >= job.last_seq:
            return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            _stream(request, state, project, job_id, start),
            media_type="text/event-stream",
            headers=headers,
        )
    rows, more = jobs.events(session, job_id, after, limit)
    return Page(data=[_event(row) for row in rows], has_more=more)


def _event_id(given: str | None, default: int) -> int:
    """The number in a Last-Event-ID header; what cannot be one of ours counts as not sent."""
    if given is None or not re.fullmatch("[0-9]{1,10}", given) or int(given) > MAX_EVENT_ID:
        return default
    return int(given)


async def _stream(request: Request, state: State, project: str, job_id: str, start: int) -> AsyncIterator[bytes]:
    """Server-sent events from the rows themselves, so any process can serve any job and a reconnect misses nothing.

    It ends with the key that asked for it, and with this process: a stream may last for days.
    """
    authorization, seen, idle = request.headers.get("authorization", ""), start, 0.0
    shown: dict[str, Any] | None = None
    yield b"retry: 1000\n\n"
    while not waiting.is_stopping(request.scope) and await state.keyring.holds(authorization):
        rows, progress, final = await to_thread.run_sync(_news, state, project, job_id, seen)
        for row in rows:
            seen, idle = row.id, 0.0
            yield f"id: {row.id}\nevent: {row.type}\ndata: {row.model_dump_json()}\n\n".encode()
        if progress != shown:
            shown, idle = progress, 0.0
            yield f"event: progress\ndata: {_latest(progress).model_dump_json()}\n\n".encode()
        if rows:
            continue
        if final:
            return
        if idle >= STREAM_HEARTBEAT_SECONDS:
            idle = 0.0
            yield b": alive\n\n"
        await asyncio.sleep(STREAM_POLL_SECONDS)
        idle += STREAM_POLL_SECONDS


def _latest(progress: dict[str, Any]) -> _Told:
    """In the shape of an entry; it is a state and no entry, so it has no id and is not replayed."""
    return _Told(at=now(), level="info", type="progress", message=progress["stage"], data=progress)


def _news(state: State, project: str, job_id: str, seen: int) -> tuple[list[EventOut], dict[str, Any], bool]:
    """Events that are new. The state is read first: an event can follow it, but none follows a final state."""
    with state.database.read() as session:
        job = jobs.get(session, project, job_id)
        rows, _ = jobs.events(session, job_id, seen, 500)
        return [_event(row) for row in rows], job.progress, job.state in FINAL
