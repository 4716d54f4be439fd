"""Engine and sessions. `read()` never writes; `write()` commits at its end, or nothing of it happened."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

# A host that has gone, or a cable that was pulled, says nothing: the system gives the connection up after half a minute
# and not after a quarter of an hour. What the URL says comes first.
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class Database:
    """One engine and the two kinds of session on it.

    On SQLite a session that will write begins with `BEGIN IMMEDIATE`: a transaction that reads first and writes later
    would otherwise fail at once, whatever the busy time-out, when another one has written in between.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
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

    @property
    def driver_error(self) -> type[Exception]:
        """What `stamp` raises when the database cannot be asked."""
        error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        return error

    def stamp(self) -> str:
        """Another text after every commit of anybody, so that what was read under the same text still holds.

        SQLite counts other connections' commits (`PRAGMA data_version`; the connection kept for it makes none); in
        PostgreSQL a snapshot names the transactions that it does not see.
        """
        with self._watching:
            if self._watcher is None:
                self._watcher = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            cursor = self._watcher.connection.cursor()
            try:
                cursor.execute("PRAGMA data_version" if self.is_local else "SELECT pg_current_snapshot()::text")
                ((stamp,),) = cursor.fetchall()
                return str(stamp)
            except self.driver_error:
                self._watcher.invalidate()
                self._watcher.close()
                self._watcher = None
                raise
            finally:
                cursor.close()

    def session(self) -> Session:
        """A session that writes and whose owner commits: the request's edge."""
        return Session(self._write_engine, expire_on_commit=False)

    def dispose(self) -> None:
        """Closes the pool."""
        with self._watching:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        own = make_url(url).query
        patience = {name: value for name, value in PATIENCE.items() if name not in own}
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=patience)
    engine = create_engine(url, connect_args={"timeout": 5, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
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
