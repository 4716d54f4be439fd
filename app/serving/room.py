"""What an engine takes on, and when it refuses."""

from dataclasses import dataclass

from app.artifact import decoding
from app.errors import Overloaded
from app.serving.rate import Rate


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine takes on before it refuses.

    Args:
        max_images: in the engine at once.
        max_wait_seconds: that the last one to come would wait, by the rate measured.
        max_pixels: of an encoded image, width times height.
    """

    max_images: int = 1024
    max_wait_seconds: float = 5.0
    max_pixels: int = decoding.MAX_PIXELS


class Room:
    """Asked before work is put into a request, and cheap enough for that.

    Args:
        limits: beyond which requests are refused.
        rate: as it is measured.
        num_threads: images that are worked at side by side.
    """

    def __init__(self, limits: Limits, rate: Rate, num_threads: int) -> None:
        self._limits, self._rate, self._num_threads = limits, rate, num_threads

    def check(self, waiting: int) -> None:
        """Refuses where too many images are before a request.

        Raises:
            Overloaded: with the seconds after which to come again.
        """
        rate = self._rate.per_second
        # One for which there is a core waits for nobody.
        wait = waiting / rate if rate and waiting >= self._num_threads else 0.0
        if waiting >= self._limits.max_images or wait > self._limits.max_wait_seconds:
            raise Overloaded(
                f"expected room for a request; found {waiting} images before it, about {wait:.1f} s of work; send it "
                "again later, or start more processes that serve",
                retry_after_seconds=max(1, round(wait / 2)),
            )
