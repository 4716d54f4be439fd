"""Two transactions at once, on both databases."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app.db.session import Database
from tests.conftest import wait_until

# Time that SQLite's second writer waits for the first before it gives up is 5 s; nothing here comes near it.
BLOCKED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture
def second(database: Database) -> Iterator[Callable[..., Future[Any]]]:
    """Starts `function(session)` in a thread and a transaction of its own; returns once it waits for the first."""
    with ThreadPoolExecutor(1) as threads:

        def start(function: Callable[..., Any]) -> Future[Any]:
            started = threading.Event()

            def run() -> Any:
                started.set()
                with database.write() as session:
                    return function(session)

            future = threads.submit(run)
            started.wait()
            if database.engine.dialect.name == "postgresql":
                wait_until(lambda: future.done() or _num_blocked(database), "a blocked transaction")
            return future

        yield start


def _num_blocked(database: Database) -> int:
    with database.read() as session:
        return int(session.scalar(BLOCKED) or 0)
