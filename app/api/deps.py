"""What routes ask for: the process's state, a session whose commit precedes the answer, the project, the page."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Body, Depends, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session as SqlSession

from app import failpoints
from app.api import auditing, callers
from app.api.followers import Followers
from app.api.held import Held
from app.api.keyring import Keyring
from app.api.remote import Remote
from app.api.under_way import UnderWay
from app.bodies import BODY
from app.db.session import Database
from app.inbox import Inbox
from app.queue import Bell
from app.services import queues, shared, waste
from app.services.drift import Observation
from app.services.predictions import Lookup, Opened
from app.services.probes import Probes
from app.services.warm_up import WarmUp
from app.serving.engine import Engine
from app.serving.statistics import Statistics
from app.settings import Settings
from app.storage import Storage
from app.tidying import Tidying
from app.tracing import Tracer

WASTE = "waste"

T = TypeVar("T")


@dataclass(frozen=True)
class State:
    """Everything that lives as long as the process; `takes_jobs` unless it serves predictions alone."""

    settings: Settings
    takes_jobs: bool
    database: Database
    storage: Storage
    probes: Probes
    inbox: Inbox
    bell: Bell
    engine: Engine
    loaders: CapacityLimiter
    opened: Opened
    lookup: Lookup
    statistics: Statistics
    held: Held
    remote: Remote
    observation: Observation
    keyring: Keyring
    warm_up: WarmUp
    tidying: Tidying
    followers: Followers
    under_way: UnderWay
    tracer: Tracer | None


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool


# Coroutines: the framework runs plain functions in threads, which takes longer than they do.
async def get_state(request: Request) -> State:
    """The process's state."""
    state: State = request.app.state.graft
    return state


def read_session(state: Annotated[State, Depends(get_state)]) -> Iterator[SqlSession]:
    """A session that only reads."""
    with state.database.read() as session:
        yield session


async def reading(state: State, read: Callable[[SqlSession], T]) -> T:
    """A read in one thread, for routes that are polled: as a dependency beside a plain function it would be four.

    Each way into a thread and back may wait for the interpreter until another busy thread gives it up.
    """

    def within() -> T:
        with state.database.read() as session:
            return read(session)

    return await to_thread.run_sync(within)


def write_session(state: Annotated[State, Depends(get_state)], response: Response) -> Iterator[SqlSession]:
    """One request = one transaction, committed before the answer goes out; then bells are rung and storage is freed."""
    with state.database.session() as session:
        yield session
        finish(state, session, response.headers.get("location"))


def finish(state: State, session: SqlSession, location: str | None = None) -> None:
    """Commits, with the entry of the audit log, and then does what may only follow a commit.

    Args:
        state: of the process.
        session: the request's.
        location: of what was made, as the answer will say.
    """
    gone: list[str] = session.info.pop(WASTE, [])
    graphs = shared.take_given_up(session)
    waste.note(session, gone)
    note = auditing.current()
    entry = note.add(session, location) if note is not None else None
    failpoints.reach("request_commit")
    session.commit()
    if note is not None:
        note.stored(entry)
    failpoints.reach("request_committed")
    waste.clear(state.database, state.storage, gone)
    shared.free(state.database, state.storage, graphs)
    failpoints.reach("request_tidied")
    for queue in queues.take_bells(session):
        state.bell.ring(queue)


def until_answered() -> Iterator[ExitStack]:
    """For what an answer is read from: it goes when the last byte is sent, or when the client has gone."""
    with ExitStack() as stack:
        yield stack


class Nothing(BaseModel):
    """The body of a call that takes none."""

    model_config = BODY


async def _no_body(_: Annotated[Nothing | None, Body(alias="body", description="None, or {}.")] = None) -> None:
    """What somebody sends here is meant to change something, and would not: it is refused, not overlooked."""


async def get_project(request: Request) -> str:
    """The project of the caller's key; `default` where keys are off."""
    return callers.of(request.scope).project


Context = Annotated[State, Depends(get_state)]
# Among the dependencies of every call with POST or PUT that takes no body.
BARE = Depends(_no_body)
UntilAnswered = Annotated[ExitStack, Depends(until_answered, scope="request")]
# scope="function": the commit happens before the response is sent, so a failed commit can still become an error.
ReadSession = Annotated[SqlSession, Depends(read_session, scope="function")]
WriteSession = Annotated[SqlSession, Depends(write_session, scope="function")]
Project = Annotated[str, Depends(get_project)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most rows in the answer.")]
After = Annotated[str | None, Query(max_length=100, description="Last id of the previous page.")]
