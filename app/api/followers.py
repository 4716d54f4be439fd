"""Streams that follow something for as long as their clients like: how many a project has open, and where they look.

They look in threads of their own: a thousand that look four times a second would else keep all others waiting for one.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter

from app.errors import TooMany

# Looks at once. A look takes a millisecond, and connections to the database are few.
NUM_LOOKS = 4
RETRY_SECONDS = 5


class Followers:
    """The open streams of one process. Used on the event loop alone.

    Args:
        most: of one project.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: Counter[str] = Counter()
        self.looks = CapacityLimiter(NUM_LOOKS)

    @contextmanager
    def one(self, project: str) -> Iterator[None]:
        """While a stream is open.

        Raises:
            TooMany: code too_many_streams.
        """
        if self._of[project] >= self._most:
            raise TooMany(
                f"expected at most {self._most} open streams of events of the project (GRAFT_MAX_EVENT_STREAMS); found "
                "as many; close one, or ask for pages, without `Accept: text/event-stream`",
                code="too_many_streams",
                retry_after_seconds=RETRY_SECONDS,
            )
        self._of[project] += 1
        try:
            yield
        finally:
            self._of[project] -= 1
            if not self._of[project]:
                del self._of[project]
