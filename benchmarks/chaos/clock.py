"""Waiting on a machine that others use, and until somebody asks to end.

Time in which this process stood still does not count. SIGINT and SIGTERM end whatever waits here: what is measured is
written, servers and folders go as after any other end.
"""

import signal
import time
from collections.abc import Callable

LOOK_SECONDS = 0.2
# Between two looks; more, and this process and those that it has started were not run.
STILL_SECONDS = 1.0

_still = {"seconds": 0.0}
# A plain word and no Event: a handler runs inside whatever the main thread is at, which may hold the Event's lock.
_told = {"to_end": False}


class Stopped(KeyboardInterrupt):
    """Somebody has asked this process to end."""


def listen() -> None:
    """From now on both signals are heard, also where a shell has its jobs in the background ignore one of them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _told.update(to_end=True))


def is_told_to_end() -> bool:
    """Whether a signal came."""
    return _told["to_end"]


def rest(seconds: float) -> None:
    """Sleeps.

    Raises:
        Stopped: a signal came.
    """
    end = time.monotonic() + seconds
    while True:
        if is_told_to_end():
            raise Stopped
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, LOOK_SECONDS))


def stood_still() -> float:
    """Seconds of waiting so far in which this process was not run."""
    return _still["seconds"]


class Patience:
    """Waits between looks, for so many seconds in which this process was run."""

    def __init__(self, seconds: float) -> None:
        self._left, self._last = seconds, time.monotonic()

    def wait(self) -> bool:
        """Whether there is time for another look.

        Raises:
            Stopped: a signal came.
        """
        rest(LOOK_SECONDS)
        passed, self._last = time.monotonic() - self._last, time.monotonic()
        _still["seconds"] += max(0.0, passed - STILL_SECONDS)
        self._left -= min(passed, STILL_SECONDS)
        return self._left > 0


def wait_until(check: Callable[[], object], what: str, seconds: float) -> None:
    """Asks until the answer is true.

    Raises:
        AssertionError: it is not within the time.
        Stopped: a signal came.
    """
    patience = Patience(seconds)
    while not check():
        assert patience.wait(), f"expected {what} within {seconds:.0f} s"
