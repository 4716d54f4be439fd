"""Locks that no row stands for: on PostgreSQL advisory ones, held to the end of the transaction.

On SQLite transactions that write stand in line anyway; there nothing has to be asked.
"""

from enum import IntEnum

from sqlalchemy import Connection, text


class Lock(IntEnum):
    """Numbers that no other lock has."""

    MIGRATION = 4711
    SHARED_OBJECTS = 4712
    COLLECTION = 4713


def hold(connection: Connection, lock: Lock, *, shared: bool = False) -> None:
    """Waits for the lock; `shared` holders do not wait for each other.

    Args:
        connection: whose transaction holds it.
        lock: which.
        shared: whether others may hold it likewise.
    """
    if connection.dialect.name == "postgresql":
        suffix = "_shared" if shared else ""
        connection.execute(text(f"SELECT pg_advisory_xact_lock{suffix}({lock.value})"))
