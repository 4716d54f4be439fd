"""Pages of rows: what every list of the API is cut by, in rows, and in bytes where rows have documents.

A page begins below an id, whether or not its row is still there: ids sort by age, so that a row which is deleted
between two pages takes nothing from whoever walks through the list.

A page may have fewer rows than were asked for: a thousand rows with documents of megabytes each would take the memory
of whoever answers. `has_more` alone says where a list ends.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, takewhile
from typing import Any, TypeVar

from sqlalchemy import JSON, ColumnElement, Select, Text, cast, func, inspect
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.base import is_id
from app.errors import BadRequest

R = TypeVar("R")

# Of the documents of one page, as text; in memory they are some ten times as large.
PAGE_BYTES = 8 * 2**20


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
    query = query.order_by(row_id.desc())
    size = _size(row_id)
    if size is None:
        return first(session, query, limit)
    while True:
        found = session.execute(query.with_only_columns(row_id, size).limit(limit + 1)).all()
        number = num_fitting(size_bytes for _, size_bytes in found[:limit])
        ids = [one for one, _ in found[:number]]
        rows = session.scalars(query.where(row_id.in_(ids))).all()
        # Else all have gone between the two.
        if rows or not found:
            return rows, len(found) > number


def num_fitting(sizes: Iterable[int]) -> int:
    """How many of some documents, in their order, make a page; the first does in any case."""
    return max(1, sum(1 for _ in takewhile(lambda total: total <= PAGE_BYTES, accumulate(sizes))))


@cache
def _size(row_id: InstrumentedAttribute[str]) -> ColumnElement[int] | None:
    """Length of a row's documents as text; None where it has none."""
    documents = [column for column in inspect(row_id.class_).columns if isinstance(column.type, JSON)]
    return length_of(*documents) if documents else None


def length_of(*documents: Any) -> ColumnElement[int]:
    """Length of columns with documents as text, all together."""
    sizes: list[Any] = [func.coalesce(func.length(cast(column, Text)), 0) for column in documents]
    total: ColumnElement[int] = sum(sizes[1:], sizes[0])
    return total


def first(session: Session, query: Select[R], limit: int) -> tuple[Sequence[R], bool]:
    """Up to `limit` rows of a query in its order; and whether there are more."""
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit
