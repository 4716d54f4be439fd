"""Waiting on a machine that others use: time in which this process stood still does not count."""

import time
from collections.abc import Callable

LOOK_SECONDS = 0.2
# Between two looks; more, and this process and those that it has started were not run.
STILL_SECONDS = 1.0

_still = {"seconds": 0.0}


def stood_still() -> float:
    """Seconds of waiting so far in which this process was not run."""
    return _still["seconds"]


class Patience:
    """Waits between looks, for so many seconds in which this process was run."""

    def __init__(self, seconds: float) -> None:
        self._left, self._last = seconds, time.monotonic()

    def wait(self) -> bool:
        """Whether there is time for another look."""
        time.sleep(LOOK_SECONDS)
        passed, self._last = time.monotonic() - self._last, time.monotonic()
        _still["seconds"] += max(0.0, passed - STILL_SECONDS)
        self._left -= min(passed, STILL_SECONDS)
        return self._left > 0


def wait_until(check: Callable[[], object], what: str, seconds: float) -> None:
    """Asks until the answer is true.

    Raises:
        AssertionError: it is not within the time.
    """
    patience = Patience(seconds)
    while not check():
        assert patience.wait(), f"expected {what} within {seconds:.0f} s"
