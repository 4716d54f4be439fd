"""From a request with images to what the engine says of them, on behalf of a client that may go away."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

from anyio import to_thread
from fastapi import Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app import log_lines
from app.api import images
from app.api.deps import State
from app.api.waiting import settled
from app.artifact.precisions import FLOAT, Precision
from app.services import predictions, rollouts
from app.services.drift import Call
from app.services.predictions import Found
from app.serving.call import Result, Timing, late
from app.texts import NAME


class AskQuery(BaseModel):
    """What the query of a call says; one model, since the framework takes its time for every parameter of its own."""

    version: int | None = Field(None, ge=1, lt=2**31)
    alias: str | None = Field(None, pattern=NAME)
    domain: str | None = Field(None, pattern=NAME, description="Where the images come from.")
    precision: Precision = Field(FLOAT, description="Which graph answers: int8 or fp16 where the version has it.")
    timeout: float | None = Field(
        None, gt=0, le=3600, description="Seconds until nobody waits for the answer any more."
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to one model.

    Args:
        request: not yet read.
        state: of the process.
        project: the caller's.
        wanted: which model.
        deadline: by `time.monotonic`.
        tells_features: whether the answer has the features of the images.
    """

    request: Request
    state: State
    project: str
    wanted: predictions.Wanted
    deadline: float | None
    tells_features: bool

    @classmethod
    def of(cls, request: Request, project: str, model: str, query: AskQuery, *, tells_features: bool) -> Self:
        """A call, as its route has it."""
        wanted = predictions.Wanted(model, query.version, query.alias, query.domain, query.precision)
        deadline = None if query.timeout is None else time.monotonic() + query.timeout
        return cls(request, request.app.state.graft, project, wanted, deadline, tells_features)

    @property
    def is_late(self) -> bool:
        """Whether nobody waits any more."""
        return self.deadline is not None and time.monotonic() > self.deadline

    async def read(self) -> list[bytes]:
        """The images of the request.

        Raises:
            DeadlineExceeded: they are not there in time.
            GraftError: as `images.read`.
        """
        if self.deadline is None:
            # A timeout without an end takes the event loop's time as well.
            return await images.read(self.request, self.state)
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                return await images.read(self.request, self.state)
        except TimeoutError:
            raise late() from None

    async def find(self) -> Found:
        """The graphs that answer: of the version that is meant, or of its canary.

        Raises:
            NotFound, Conflict: as `Lookup.find`.
        """
        lookup = self.state.lookup
        found = lookup.known(self.project, self.wanted) if self.state.database.is_local else None
        if found is None:
            found = await to_thread.run_sync(lookup.find, self.project, self.wanted)
        return rollouts.chosen(found, tells_features=self.tells_features)

    async def all(self) -> tuple[Found, Result]:
        """What the model says of every image of the request.

        Raises:
            GraftError: the request, an image, or the engine.
            ClientDisconnect: nobody waits any more.
        """
        sent = await self.read()
        found = await self.find()
        result = await settled(self.request, self.submit(found, sent))
        self.compare(found, sent, result)
        return found, result

    def submit(self, found: Found, sent: Sequence[bytes], first: int = 0) -> Future[Result]:
        """Gives images to the engine; `first` is the place that the first of them has in the request."""
        began = time.monotonic()
        future = self.state.engine.submit(found.model, sent, self.deadline, self.project)
        call = Call(found, sent, self.wanted.alias, self.wanted.domain, log_lines.ids().request_id, first)
        return self.state.observation.watch(call, self.state.statistics.watch(found.version_id, future, began))

    def compare(self, found: Found, sent: Sequence[bytes], result: Result) -> None:
        """Asks the shadow, where there is one, what has just been answered."""
        rollouts.compare(self.state.engine, self.state.statistics, found, sent, result)


def json(found: Found, result: Result, document: dict[str, Any]) -> Response:
    """An answer that is made by hand: checking thousands of our own numbers takes longer than computing them."""
    return Response(to_json(document), headers=described(found, result.timing), media_type="application/json")


def described(found: Found, timing: Timing | None = None) -> dict[str, str]:
    """Headers that say who answered: version and alignment; and, in milliseconds, what the last image waited for."""
    headers = {"X-Graft-Version": str(found.version), "X-Graft-Precision": found.model.precision}
    if found.alignment is not None:
        headers["X-Graft-Alignment"] = found.alignment
    if timing is not None:
        # Server-Timing (W3C): browsers and proxies show it.
        headers["Server-Timing"] = (
            f"decode;dur={1000 * timing.decode:.2f}, queue;dur={1000 * timing.queue:.2f}, "
            f"compute;dur={1000 * timing.compute:.2f}"
        )
    return headers
