"""The log of a job: in pages, or as a stream that follows it to its end."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

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

# Events, progress, and whether the job has ended.
_News = tuple[list["EventOut"], dict[str, Any], bool]


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
        429: {"description": "The project has as many streams open as it may."},
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
        return _Following(request, state, project, job_id, start)
    rows, more = jobs.events(session, job_id, after, limit)
    return Page(data=[_event(row) for row in rows], has_more=more)


def _event_id(given: str | None, default: int) -> int:
    """The number in a Last-Event-ID header; what cannot be one of ours counts as not sent."""
    if given is None or not re.fullmatch("[0-9]{1,10}", given) or int(given) > MAX_EVENT_ID:
        return default
    return int(given)


class _Following(StreamingResponse):
    """A stream that counts among its project's while it is open; one too many becomes a refusal instead."""

    def __init__(self, request: Request, state: State, project: str, job_id: str, start: int) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        content = _stream(request, state, project, job_id, start)
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._followers, self._project = state.followers, project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the framework's."""
        with self._followers.one(self._project):
            await super().__call__(scope, receive, send)


async def _stream(request: Request, state: State, project: str, job_id: str, start: int) -> AsyncIterator[bytes]:
    """Server-sent events from the rows themselves, so any process can serve any job and a reconnect misses nothing.

    It ends with the key that asked for it, and with this process: a stream may last for days.
    """
    authorization, seen, idle = request.headers.get("authorization", ""), start, 0.0
    shown: dict[str, Any] | None = None
    stamp = ""
    yield b"retry: 1000\n\n"
    while not waiting.is_stopping(request.scope) and await state.keyring.holds(authorization):
        look = partial(_news, state, project, job_id, seen, stamp)
        stamp, news = await to_thread.run_sync(look, limiter=state.followers.looks)
        if news is not None:
            rows, progress, final = news
            for row in rows:
                seen, idle = row.id, 0.0
                yield f"id: {row.id}\nevent: {row.type}\ndata: {row.model_dump_json()}\n\n".encode()
            if progress != shown:
                shown, idle = progress, 0.0
                yield f"event: progress\ndata: {_latest(progress).model_dump_json()}\n\n".encode()
            if rows:
                # There may be more than came at once.
                stamp = ""
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


def _news(state: State, project: str, job_id: str, seen: int, stamp: str) -> tuple[str, _News | None]:
    """The database's stamp, and what a job has behind the event `seen`; None where nobody has written since `stamp`.

    The state is read before the events: an event can follow it, but none follows a final state.
    """
    found = state.database.stamp()
    if found == stamp:
        return stamp, None
    with state.database.read() as session:
        job = jobs.get(session, project, job_id)
        rows, _ = jobs.events(session, job_id, seen, 500)
        return found, ([_event(row) for row in rows], job.progress, job.state in FINAL)
