"""`Idempotency-Key`: the same POST sent again gets the first answer, and nothing happens twice.

The stored answer is written in the transaction that does the work, so either both exist or neither.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.models import IdempotencyKey
from app.errors import Conflict, Unprocessable

KEPT = timedelta(hours=24)
MAX_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored response: body as JSON text, and its Location."""

    body: bytes
    location: str | None


def fingerprint(*parts: Any) -> str:
    """Digest of what a request asks for."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def begin(session: Session, project: str, route: str, key: str | None, print_: str) -> Answer | None:
    """Looks for a stored answer, or reserves the key for this transaction.

    Raises:
        Unprocessable: code idempotency_mismatch, the key came with another payload before.
        Conflict: code idempotency_in_flight, the first request with this key has not ended.
    """
    if key is None:
        return None
    if not 0 < len(key) <= MAX_LENGTH:
        raise Unprocessable(f"expected an Idempotency-Key of 1 to {MAX_LENGTH} characters; found {len(key)}")
    # This one's alone: with those of others their requests would wait for this transaction.
    mine = [IdempotencyKey.project_id == project, IdempotencyKey.route == route, IdempotencyKey.key == key]
    session.execute(delete(IdempotencyKey).where(*mine, IdempotencyKey.created_at < now() - KEPT))
    row = session.get(IdempotencyKey, (project, route, key))
    if row is None:
        session.add(IdempotencyKey(project_id=project, route=route, key=key, fingerprint=print_))
        try:
            session.flush()
        except IntegrityError as error:
            raise Conflict(
                "expected the first request with this Idempotency-Key to have ended; found it in flight; send it again",
                code="idempotency_in_flight",
            ) from error
        return None
    _check_same(row, print_)
    assert row.body is not None
    return Answer(row.body, row.location)


def is_answered(session: Session, project: str, route: str, key: str | None) -> bool:
    """Whether an answer is stored under the key, to whatever request."""
    return _answered(session, project, route, key) is not None


def kept(session: Session, project: str, route: str, key: str | None, print_: str) -> Answer | None:
    """A stored answer to the same request, without a reservation: a look before work that holds no transaction.

    Raises:
        Unprocessable: code idempotency_mismatch, the key came with another payload before.
    """
    row = _answered(session, project, route, key)
    if row is None:
        return None
    _check_same(row, print_)
    assert row.body is not None
    return Answer(row.body, row.location)


def keep(session: Session, project: str, route: str, key: str | None, answer: Answer) -> None:
    """Stores the answer under the key that `begin` reserved."""
    if key is not None:
        row = session.get_one(IdempotencyKey, (project, route, key))
        row.body, row.location = answer.body, answer.location


def expire(session: Session) -> None:
    """Drops answers that are given no more."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - KEPT))


def _answered(session: Session, project: str, route: str, key: str | None) -> IdempotencyKey | None:
    row = session.get(IdempotencyKey, (project, route, key)) if key else None
    return None if row is None or row.body is None or row.created_at < now() - KEPT else row


def _check_same(row: IdempotencyKey, print_: str) -> None:
    if row.fingerprint != print_:
        raise Unprocessable(
            "expected the payload that this Idempotency-Key came with before; found another one; use a new key",
            code="idempotency_mismatch",
        )
