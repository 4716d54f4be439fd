"""Connections to PostgreSQL that do not wait for ever.

A server that is gone refuses, and the system gives a host up that has gone silent. A server that is frozen, or a proxy
that swallows, still takes every byte and never answers: that only a clock on this side tells. What the server itself
can end, a statement that takes too long or waits for a lock, it is asked to end before that.
"""

import math
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

# Of a question that costs the server nothing: whether a connection of the pool still leads anywhere.
PING_SECONDS = 5.0
# After a server that took a connection and said nothing: between two that try whether it does again.
TRIAL_SECONDS = 1.0


class Breaker:
    """Whether a server is worth waiting for: after one that said nothing, one at a time finds out for all.

    Without it everybody waits as long as the first did, and those who wait for a connection or a thread of theirs, as
    often as there are rows of them. (A circuit breaker; a pool without one is no bound.)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # When the next one may try; none where the server answers.
        self._next_trial: float | None = None

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Around the making of a connection.

        Raises:
            OperationalError: the server said nothing to the last one, and it is not yet time to try again.
        """
        with self._lock:
            moment = time.monotonic()
            if self._next_trial is not None and moment < self._next_trial:
                raise psycopg.OperationalError(
                    "expected PostgreSQL to answer; found that it took the last connection and said nothing; "
                    f"it is tried again every {TRIAL_SECONDS:g} s"
                )
            if self._next_trial is not None:
                self._next_trial = moment + TRIAL_SECONDS
        try:
            yield
        except psycopg.errors.ConnectionTimeout:
            with self._lock:
                self._next_trial = time.monotonic() + TRIAL_SECONDS
            raise
        with self._lock:
            self._next_trial = None


class BoundedConnection(psycopg.Connection[Any]):
    """One on which nothing waits longer than `silence_seconds` for a byte of the server."""

    silence_seconds = math.inf
    has_answered = False

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """As the driver's, for every statement, commit and rollback."""
        return super().wait(self._heard(gen), *args, **kwargs)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """No longer than that meanwhile."""
        usual = self.silence_seconds
        self.silence_seconds = min(usual, seconds)
        try:
            yield
        finally:
            self.silence_seconds = usual

    def _heard(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The driver asks ten times a second whether anything has come; `ready` is 0 when nothing has.

        Raises:
            OperationalError: nothing has for too long. The connection is closed: its answer might come yet, and would
                be taken for that to the next question.
        """
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                moment = time.monotonic()
                if ready:
                    heard = moment
                elif moment - heard > self.silence_seconds:
                    self.close()
                    raise psycopg.OperationalError(
                        f"expected PostgreSQL to answer within {self.silence_seconds:g} s; found that it says nothing; "
                        "the connection was given up"
                    )
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def bind(engine: Engine, silence_seconds: float) -> None:
    """Gives an engine such connections, and looks at each that comes out of its pool.

    Args:
        engine: one for PostgreSQL.
        silence_seconds: infinite for as long as it takes.
    """
    breaker = Breaker()

    def connect(_dialect: Any, _record: Any, args: Any, parameters: dict[str, Any]) -> BoundedConnection:
        with breaker.trying():
            made = BoundedConnection.connect(*args, **parameters)
        made.silence_seconds = silence_seconds
        return made

    def look(connection: Any, _record: Any, _proxy: Any) -> None:
        try:
            with connection.within(PING_SECONDS):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            if not connection.has_answered:
                # Made just now, by a proxy whose server is away: one more would be no better.
                raise
            # All that were made before are as old; the pool makes a new one, which is not asked in vain for long.
            raise InvalidatePoolError from error
        connection.has_answered = True

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", look)
