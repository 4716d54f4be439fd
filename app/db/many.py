"""Look-ups of more values than one statement takes."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

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
