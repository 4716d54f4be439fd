"""Engine and sessions. `read()` never writes; `write()` commits at its end, or nothing of it happened."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as TookTooLong
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

# A host that has gone, or a cable that was pulled, says nothing: the system gives the connection up after half a minute
# and not after a quarter of an hour. What the URL says comes first.
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# For whoever else asks for the stamp at this moment, and for the server.
STAMP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long PostgreSQL is waited for; infinite: for as long as it takes. SQLite waits 5 s for another writer.

    Args:
        statement_seconds: for a statement, after which the server ends it.
        lock_seconds: for what another transaction holds, after which the server ends the statement.
        silence_seconds: for a byte of the server, after which the connection is given up.
    """

    statement_seconds: float = math.inf
    lock_seconds: float = math.inf
    silence_seconds: float = math.inf

    def options(self, own: str) -> str:
        """What the server is told when a connection begins.

        Args:
            own: the URL's options, which count for more.
        """
        told = {"statement_timeout": self.statement_seconds, "lock_timeout": self.lock_seconds}
        ours = [f"-c {name}={math.ceil(seconds * 1000)}" for name, seconds in told.items() if seconds < math.inf]
        return " ".join([*ours, own]).strip()


UNBOUNDED = Bounds()


class Database:
    """One engine and the two kinds of session on it.

    On SQLite a session that will write begins with `BEGIN IMMEDIATE`: a transaction that reads first and writes later
    would otherwise fail at once, whatever the busy time-out, when another one has written in between.

    Args:
        url: of SQLAlchemy.
        bounds: of what is asked here.
    """

    def __init__(self, url: str, bounds: Bounds = UNBOUNDED) -> None:
        self.engine = _engine(url, bounds)
        self._write_engine = self.engine.execution_options(graft_writes=True)
        self._watcher: Connection | None = None
        self._watching = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading only."""
        with Session(self.engine, autoflush=False, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is one transaction: committed at the end, rolled back on an error."""
        with Session(self._write_engine, expire_on_commit=False) as session, session.begin():
            yield session

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine, and a look at it takes microseconds."""
        return self.engine.dialect.name == "sqlite"

    def stamp(self) -> str:
        """Another text after every commit of anybody, so that what was read under the same text still holds.

        SQLite counts other connections' commits (`PRAGMA data_version`; the connection kept for it makes none); in
        PostgreSQL a snapshot names the transactions that it does not see.

        Raises:
            SQLAlchemyError: the database cannot be asked.
        """
        if not self._watching.acquire(timeout=STAMP_SECONDS):
            raise TookTooLong(f"expected the database to answer within {STAMP_SECONDS:g} s; found that it does not")
        try:
            if self._watcher is None:
                self._watcher = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            return self._ask_stamp(self._watcher)
        finally:
            self._watching.release()

    def _ask_stamp(self, watcher: Connection) -> str:
        statement = "PRAGMA data_version" if self.is_local else "SELECT pg_current_snapshot()::text"
        driver: Any = watcher.connection.driver_connection
        cursor = driver.cursor()
        try:
            with nullcontext() if self.is_local else driver.within(STAMP_SECONDS):
                cursor.execute(statement)
                ((stamp,),) = cursor.fetchall()
            return str(stamp)
        except self.engine.dialect.loaded_dbapi.Error as error:
            watcher.invalidate()
            watcher.close()
            self._watcher = None
            raise OperationalError(statement, None, error) from error
        finally:
            cursor.close()

    def session(self) -> Session:
        """A session that writes and whose owner commits: the request's edge."""
        return Session(self._write_engine, expire_on_commit=False)

    def dispose(self) -> None:
        """Closes the pool, and each connection that a thread still uses once it is given back."""
        with self._watching:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
        # A pool that was disposed of takes late ones back and keeps them open until it is collected.
        event.listen(self.engine, "checkin", _close)
        self.engine.dispose()


def _close(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.close()


def _engine(url: str, bounds: Bounds) -> Engine:
    # What a statement was given is hidden from errors, which are logged: secrets and users' labels are among it.
    if not url.startswith("sqlite"):
        return _postgresql(url, bounds)
    engine = create_engine(url, connect_args={"timeout": 5, "check_same_thread": False}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: str, bounds: Bounds) -> Engine:
    # Where the database is a file its driver is not loaded.
    from app.db import bounded

    own = make_url(url).query
    told: dict[str, Any] = {name: value for name, value in PATIENCE.items() if name not in own}
    given = own.get("options", "")
    if options := bounds.options(given if isinstance(given, str) else " ".join(given)):
        told["options"] = options
    engine = create_engine(url, pool_size=10, max_overflow=20, connect_args=told, hide_parameters=True)
    bounded.bind(engine, bounds.silence_seconds)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transaction control is switched off; _begin_sqlite says when one starts.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=5000")
    _enter_wal(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _enter_wal(cursor: Any) -> None:
    """The switch to WAL ignores the busy time-out; with two processes on a new database it is asked again."""
    deadline = time.monotonic() + 5
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("graft_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
