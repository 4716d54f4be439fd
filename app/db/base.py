"""What every table shares: naming of constraints, time in UTC, ids that sort by age."""

import os
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = 20
NUM_DRAWN = 512

Document = JSON().with_variant(JSONB(), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, aware on both databases (SQLite itself drops the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses a naive moment; stores UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("expected an aware datetime; found a naive one; use app.db.base.now()")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Gives the zone back."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: Document, list[Any]: Document, datetime: UtcDateTime()}  # noqa: RUF012


def now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """`prefix_` + 9 characters of milliseconds + 11 random ones: sorts by age, cannot be guessed.

    Within one process every id is larger than the one before it, so that lists have the order in which rows were made
    even where several are made in a millisecond; the step between two such is random too (40 bits).
    """
    number = _numbers.next()
    return f"{prefix}_{''.join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_DIGITS - 1), -1, -5))}"


def is_id(text: str, prefix: str) -> bool:
    """Whether `new_id` could have made it."""
    kind, _, number = text.partition("_")
    return kind == prefix and len(number) == _DIGITS and set(number) <= set(_ALPHABET)


class _Numbers:
    """Numbers of 100 bits that only grow: 45 of milliseconds, 55 random."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()
        # Drawn from the system many at once: each time the thread gives the interpreter away, and may wait for it.
        self._drawn: list[int] = []
        os.register_at_fork(after_in_child=self._drawn.clear)

    def next(self) -> int:
        with self._lock:
            if not self._drawn:
                self._drawn += memoryview(secrets.token_bytes(8 * NUM_DRAWN)).cast("Q")
            fresh = (time.time_ns() // 1_000_000 << 55) | self._drawn.pop() >> 9
            self._last = fresh if fresh > self._last else self._last + 1 + secrets.randbits(40)
            return self._last


_numbers = _Numbers()
