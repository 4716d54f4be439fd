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


def wait_until(check: Callable[[], object], what: str, seconds: float) -> None:
    """Asks until the answer is true.

    Raises:
        AssertionError: it is not within the time, that in which this process stood still left out.
    """
    waited, last = 0.0, time.monotonic()
    while not check():
        time.sleep(LOOK_SECONDS)
        passed, last = time.monotonic() - last, time.monotonic()
        _still["seconds"] += max(0.0, passed - STILL_SECONDS)
        waited += min(passed, STILL_SECONDS)
        assert waited < seconds, f"expected {what} within {seconds:.0f} s"
