"""Pages of rows: what every list of the API is cut by.

A page begins below an id, whether or not its row is still there: ids sort by age, so that a row which is deleted
between two pages takes nothing from whoever walks through the list.
"""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.base import is_id
from app.errors import BadRequest

R = TypeVar("R")


def newest(
    session: Session, query: Select[R], row_id: InstrumentedAttribute[str], prefix: str, limit: int, after: str | None
) -> tuple[Sequence[R], bool]:
    """Rows, newest first, below the id `after`; and whether there are more.

    Args:
        session: to read in.
        query: of the rows.
        row_id: column of their ids.
        prefix: of their ids.
        limit: of rows.
        after: last id of the page before; None for the first page.

    Raises:
        BadRequest: `after` is no id of such a row, so that what lies below it says nothing.
    """
    if after is not None:
        if not is_id(after, prefix):
            raise BadRequest(
                f"expected after to be the last id of the page before, {prefix}_...; found {after[:100]!r}; leave it "
                "out to begin with the first page"
            )
        query = query.where(row_id < after)
    return first(session, query.order_by(row_id.desc()), limit)


def first(session: Session, query: Select[R], limit: int) -> tuple[Sequence[R], bool]:
    """Up to `limit` rows of a query in its order; and whether there are more."""
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
