"""How many images a second come out of a line in which one always waits: what the wait of the last is told by."""

import time

HALF_LIFE_SECONDS = 2.0


class Rate:
    """Images per second of busy time, recent ones counting more; not safe for threads, the engine's lock holds it."""

    def __init__(self) -> None:
        self._number = self._seconds = 0.0
        self._last: float | None = None

    @property
    def per_second(self) -> float:
        """Zero until something was measured."""
        return self._number / self._seconds if self._seconds else 0.0

    def count(self, number: int, seconds: float, computing_seconds: float) -> None:
        """A batch has come out.

        With nothing before it, it says what is possible at least: so a rate that was low once rises again where images
        come one by one. The first of all may have waited for its graphs, so what it says is how long it was computed.

        Args:
            number: of images.
            seconds: since the first of them came.
            computing_seconds: since the batch began.
        """
        now = time.monotonic()
        if self._last is not None:
            passed = now - self._last
            keep = 0.5 ** (passed / HALF_LIFE_SECONDS)
            self._number, self._seconds = self._number * keep + number, self._seconds * keep + passed
        elif not self._seconds:
            self._number, self._seconds = number, computing_seconds
        elif number / seconds > self.per_second:
            self._number, self._seconds = number, seconds
        self._last = now

    def pause(self) -> None:
        """Nothing waits: the time until the next batch says nothing about the rate."""
        self._last = None
