"""Which requests bring bytes, so that the end of a process waits until they have kept what came."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

# With the three seconds that requests are given to end by themselves, less than a container is given to stop.
ENDING_SECONDS = 5.0


class UnderWay:
    """How many requests of a process bring bytes; those that its end breaks off keep what came, which takes a while."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """While a request is one of them. On the loop's thread."""
        self._number += 1
        try:
            yield
        finally:
            self._number -= 1

    async def wait(self, seconds: float = ENDING_SECONDS) -> None:
        """Until there is none; not for ever, since storage may be away."""
        deadline = time.monotonic() + seconds
        while self._number and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
