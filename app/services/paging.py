"""Pages of rows: what every list of the API is cut by."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

R = TypeVar("R")


def newest(
    session: Session, query: Select[R], row_id: InstrumentedAttribute[str], limit: int, after: str | None
) -> tuple[Sequence[R], bool]:
    """Rows, newest first, below the id `after`; and whether there are more. Ids sort by age."""
    if after:
        query = query.where(row_id < after)
    return first(session, query.order_by(row_id.desc()), limit)


def first(session: Session, query: Select[R], limit: int) -> tuple[Sequence[R], bool]:
    """Up to `limit` rows of a query in its order; and whether there are more."""
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
