"""What an error of the database means for whoever has to put it right."""

from sqlalchemy.exc import SQLAlchemyError

# Of PostgreSQL: undefined_table and undefined_column.
_UNMIGRATED_STATES = frozenset({"42P01", "42703"})
# Of SQLite; the last is said of a file in a folder that `graft migrate` makes, which says more where it cannot.
_UNMIGRATED_WORDS = ("no such table", "no such column", "unable to open database file")


def is_unmigrated(error: SQLAlchemyError) -> bool:
    """Whether a table or column is missing that a migration makes, or the file of all. SQLite says so in words."""
    state, said = getattr(getattr(error, "orig", None), "sqlstate", None), first_line(error)
    return state in _UNMIGRATED_STATES or any(words in said for words in _UNMIGRATED_WORDS)


def first_line(error: SQLAlchemyError) -> str:
    """What the database itself said, without the statement and its values."""
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]
