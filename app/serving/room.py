"""What an engine takes on, and when it refuses."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from app.artifact import decoding
from app.errors import Overloaded
from app.serving.rate import Rate

# Backbones whose rates are remembered.
NUM_RATES = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine takes on before it refuses.

    Args:
        max_images: in the engine at once; beyond it those alone are let in that hold less than their share of so many.
        max_wait_seconds: that the last one to come would wait, by the rate of its backbone.
        max_pixels: of an encoded image, width times height.
    """

    max_images: int = 1024
    max_wait_seconds: float = 5.0
    max_pixels: int = decoding.MAX_PIXELS


class Room:
    """What is in the engine, and whether more would wait too long; changed under the engine's lock, read without it.

    Backbones take turns, so each has a line and a rate of its own: a slow one that is full says nothing about a fast
    one, and a fast one's rate promises nothing of a slow one. What a rate is measured beside is in it.

    In a line projects take turns, so a project waits for what it has there itself, and for as much of each other one.
    Whoever fills the line is refused; those that have less there are not, until they would wait as long.

    Args:
        limits: beyond which requests are refused.
        num_threads: images that are worked at side by side.
    """

    def __init__(self, limits: Limits, num_threads: int) -> None:
        self._limits, self._num_threads = limits, num_threads
        self.num_images = 0
        # Images of each project, in all and by the backbone that they are for. Copied before they are gone through.
        self._held: dict[str, int] = {}
        self._waiting: dict[str, dict[str, int]] = {}
        # Those that ran last, the latest at the end.
        self._rates: OrderedDict[str, Rate] = OrderedDict()

    def check(self, backbones: Collection[str], project: str) -> None:
        """Refuses where too many images are before a request: in all, or for each backbone that may answer it.

        Cheap enough to be asked before work is put into a request.

        Args:
            backbones: their files; where there is none, only images in all count.
            project: whose request it is.

        Raises:
            Overloaded: with the seconds after which to come again.
        """
        lines = (self._line(backbone, project) for backbone in backbones)
        number, wait = min(lines, key=lambda line: line[1], default=(0, 0.0))
        if self._is_full(project):
            number = self.num_images
        elif wait <= self._limits.max_wait_seconds:
            return
        raise Overloaded(
            f"expected room for a request; found {number} images before it, about {wait:.1f} s of work; send it "
            "again later, or start more processes that serve",
            retry_after_seconds=max(1, round(wait / 2)),
        )

    def enter(self, backbone: str, number: int, project: str) -> None:
        """So many images of a project, for the backbone of that file, are in the engine from now on."""
        self.num_images += number
        _add(self._held, project, number)
        _add(self._waiting.setdefault(backbone, {}), project, number)

    def leave(self, backbone: str, number: int, project: str) -> None:
        """They are not any more."""
        self.num_images -= number
        _add(self._held, project, -number)
        _add(self._waiting[backbone], project, -number)
        if not self._waiting[backbone]:
            del self._waiting[backbone]
            if backbone in self._rates:
                self._rates[backbone].pause()

    def ran(self, backbone: str, number: int, seconds: float, computing_seconds: float, *, is_last: bool) -> None:
        """A batch has come out.

        Args:
            backbone: file of its graph.
            number: of images.
            seconds: since the first of them came.
            computing_seconds: since the batch began.
            is_last: whether nothing waits for the backbone now.
        """
        rate = self._rates.setdefault(backbone, Rate())
        self._rates.move_to_end(backbone)
        rate.count(number, seconds, computing_seconds)
        if is_last:
            rate.pause()
        while len(self._rates) > NUM_RATES:
            self._rates.popitem(last=False)

    def per_second(self, backbone: str) -> float:
        """Images that come out for a backbone while some wait; zero as long as nothing was measured."""
        rate = self._rates.get(backbone)
        return 0.0 if rate is None else rate.per_second

    def _is_full(self, project: str) -> bool:
        """Whether too many images are in the engine, and of the project no less than its share of so many."""
        if self.num_images < self._limits.max_images:
            return False
        held = self._held.copy()
        return held.setdefault(project, 0) * len(held) >= self._limits.max_images

    def _line(self, backbone: str, project: str) -> tuple[int, float]:
        """Images for a backbone that come before one more of a project, and the seconds that it would wait for them."""
        held = self._waiting.get(backbone, {}).copy()
        own = held.pop(project, 0)
        number = own + sum(min(other, own + 1) for other in held.values())
        rate = self.per_second(backbone)
        # One for which there is a core waits for nobody: so a rate that was low once is measured again.
        return number, number / rate if rate and number >= self._num_threads else 0.0


def _add(held: dict[str, int], project: str, number: int) -> None:
    held[project] = held.get(project, 0) + number
    if not held[project]:
        del held[project]
