"""Look-ups of more values than one statement takes, and rows that several write at once."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.base import Base

R = TypeVar("R")

# Of one `IN`: PostgreSQL takes 65,535, SQLite often half of that.
MOST_VALUES = 10_000


def among(
    session: Session, wanted: Select[R], column: InstrumentedAttribute[str], values: Iterable[str]
) -> Iterator[R]:
    """What the query selects where a column has one of the values, however many those are; each value counts once.

    Args:
        session: reads.
        wanted: without the condition.
        column: that is looked in.
        values: in any order.
    """
    left = sorted(set(values))
    for first in range(0, len(left), MOST_VALUES):
        yield from session.scalars(wanted.where(column.in_(left[first : first + MOST_VALUES])))


def upsert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An insert that takes an `on_conflict_...`: who looks first and inserts then, loses to whoever does both between.

    Args:
        session: that will execute it; each database has a statement of its own, with the same clauses.
        table: that rows come to.
    """
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)
