"""A POST that makes something: a Location, and the same answer again to the same Idempotency-Key."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app import failpoints
from app.api.deps import Context, Project, WriteSession, finish
from app.api.forms import replayed
from app.services import idempotency

M = TypeVar("M", bound=BaseModel)


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


class Once:
    """What a route asks for that stores bytes before its transaction, and runs both in a thread.

    Args:
        response: of the request.
        state: of the process.
        project: the caller's.
        idempotency_key: of the header.
    """

    def __init__(
        self,
        response: Response,
        state: Context,
        project: Project,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> None:
        self.state, self.project = state, project
        self._response, self._key = response, idempotency_key

    def is_answered(self, route: str) -> bool:
        """Whether an answer is stored under the request's key, before anybody knows whether it is the same request."""
        if self._key is None:
            return False
        with self.state.database.read() as session:
            return idempotency.is_answered(session, self.project, route, self._key)

    def before(self, route: str, asked: Any, status: int) -> Response | None:
        """The answer that is stored, for a look before work that holds no transaction.

        Raises:
            Unprocessable: code idempotency_mismatch.
        """
        with self.state.database.read() as session:
            kept = idempotency.kept(session, self.project, route, self._key, idempotency.fingerprint(*asked))
        return None if kept is None else replayed(kept, status)

    def answer(
        self, route: str, asked: Any, make: Callable[[Session], tuple[M, str]], status: int = 202
    ) -> Response | M:
        """Does the work once for each key, in one transaction.

        Args:
            route: as `Accept.answer`.
            asked: parts that tell one request from another.
            make: does the work; its answer, and the location of what was made.
            status: of an answer that is given again.

        Returns:
            what `make` says, or a stored answer, as a response, where nothing was made now.

        Raises:
            GraftError: see `idempotency.begin`, and what `make` raises.
        """
        print_ = idempotency.fingerprint(*asked)
        with self.state.database.session() as session:
            kept = idempotency.begin(session, self.project, route, self._key, print_)
            if kept is not None:
                session.commit()
                failpoints.reach("answer_found")
                return replayed(kept, status)
            out, location = make(session)
            stored = idempotency.Answer(out.model_dump_json().encode(), location)
            idempotency.keep(session, self.project, route, self._key, stored)
            finish(self.state, session, location)
        self._response.headers["Location"] = location
        return out


OnceEach = Annotated[Once, Depends()]
