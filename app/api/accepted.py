"""A POST that starts work: 202 with a Location, and the same answer again to the same Idempotency-Key."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Response
from pydantic import BaseModel

from app.api.deps import Project, WriteSession
from app.api.forms import replayed
from app.services import idempotency


class Accept:
    """What a route asks for as a dependency, and answers through.

    Args:
        response: of the request.
        session: its transaction, in which the answer is kept too.
        project: the caller's.
        idempotency_key: of the header.
    """

    def __init__(
        self,
        response: Response,
        session: WriteSession,
        project: Project,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> None:
        self._response, self._session, self._project, self._key = response, session, project, idempotency_key

    def answer(self, route: str, asked: Any, make: Callable[[], BaseModel], location: str) -> Any:
        """Does the work once for each key.

        Args:
            route: that keys are kept apart by, such as `POST /jobs`.
            asked: JSON-ready, tells one request from another.
            make: does the work; its answer has an `id`.
            location: of what was made, with `{id}` in it.

        Raises:
            GraftError: see `idempotency.begin`, and what `make` raises.
        """
        print_ = idempotency.fingerprint(asked)
        kept = idempotency.begin(self._session, self._project, route, self._key, print_)
        if kept is not None:
            return replayed(kept)
        out = make()
        place = location.format(id=getattr(out, "id"))  # noqa: B009  (any model that has an id)
        stored = idempotency.Answer(out.model_dump_json().encode(), place)
        idempotency.keep(self._session, self._project, route, self._key, stored)
        self._response.headers["Location"] = place
        return out


Accepted = Annotated[Accept, Depends(scope="function")]
