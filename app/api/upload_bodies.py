"""Brings the body of a request into its upload, whatever becomes of the connection; and takes an upload away."""

import asyncio
from collections.abc import Callable

from anyio import CancelScope, to_thread
from fastapi import Request
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from app.api import tus
from app.api.deps import State, finish, get_state
from app.db.uploads import Upload
from app.errors import TimedOut
from app.services import uploads
from app.services.receiving import Receiver


async def received(request: Request, receiver: Receiver) -> Upload:
    """The upload with the request's body in it; whatever ends it, what came and can be kept is kept.

    Raises:
        ClientDisconnect, TimedOut: the body broke off.
        GraftError: as `Receiver`.
    """
    state = await get_state(request)
    with state.under_way.one():
        return await _received(request, receiver)


async def _received(request: Request, receiver: Receiver) -> Upload:
    try:
        await to_thread.run_sync(receiver.open)
        try:
            async for data in tus.body(request):
                if data:
                    await to_thread.run_sync(receiver.write, data)
                else:
                    await to_thread.run_sync(receiver.pause)
            return await to_thread.run_sync(receiver.end)
        except (ClientDisconnect, TimedOut, asyncio.CancelledError):
            # The last of them: the process is told to end.
            await _whole(receiver.keep)
            raise
    finally:
        await _whole(receiver.close)


async def _whole(function: Callable[[], None]) -> None:
    """Runs something in a thread to its end, also when the process is told to end meanwhile."""
    with CancelScope(shield=True):
        ending = asyncio.ensure_future(to_thread.run_sync(function))
        told: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                told = error
        ending.result()
        if told is not None:
            raise told


async def first(request: Request, state: State, row: Upload, receiver: Receiver) -> Upload:
    """Bytes that come with the beginning; where that fails nobody has been told of the upload, and it goes.

    Raises:
        Exception: as `received`.
    """
    try:
        return await received(request, receiver)
    except BaseException:
        with CancelScope(shield=True):
            await to_thread.run_sync(_give_up, state, row)
        raise


def nothing(receiver: Receiver) -> Upload:
    """An empty file is all there at once."""
    try:
        return receiver.open().end()
    finally:
        receiver.close()


def delete(state: State, session: Session, project: str, upload_id: str) -> None:
    """Removes an upload's row, commits, and then its bytes.

    Raises:
        GraftError: as `uploads.delete`.
    """
    gone = uploads.delete(session, project, upload_id)
    finish(state, session)
    state.inbox.discard(gone)


def _give_up(state: State, row: Upload) -> None:
    with state.database.session() as session:
        delete(state, session, row.project_id, row.id)
