"""One request's images on their way through the engine: what is decoded, what is computed, what came out.

Shape legend: N images, H x W pixels, D features, C classes.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.errors import BadImage, DeadlineExceeded, Overloaded
from app.serving.model import Served

Pixels = NDArray[np.uint8]
Images = Sequence[bytes] | Pixels


@dataclass(slots=True)
class Timing:
    """Seconds that the last image of a request spent in each stage, and the batches that the request came first in.

    The stages add up to what the request took in the engine: the queue is all the time in which nothing was done to
    that image, for want of a decoder or of a core. A batch has one first request, so that these add up to the batches
    that were run.
    """

    decode: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    batches: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a model says of the images of one request, in their order.

    Shape:
        probabilities_NC: [N, C]
        features_ND: [N, D], those that the head saw
    """

    probabilities_NC: NDArray[np.float32]
    features_ND: NDArray[np.float32]
    timing: Timing


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A decoded image that waits for its batch, and the seconds that it took to decode."""

    index: int
    pixels_HWC: Pixels
    decode_seconds: float = 0.0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """The engine's book about one request; all of it is touched under the engine's lock.

    Args:
        model: what is asked.
        images: encoded ones, or pixels [N, H, W, 3] that need no decoding.
        max_pixels: largest width times height of an encoded image.
        deadline: by `time.monotonic`; nobody waits after it.
        project: whose request it is.
    """

    model: Served
    images: Images
    max_pixels: int
    deadline: float | None = None
    project: str = ""
    future: Future[Result] = field(default_factory=Future)
    timing: Timing = field(default_factory=Timing)
    since: float = field(default_factory=time.monotonic)
    ready: deque[Ready] = field(default_factory=deque)
    num_taken: int = 0
    num_decoding: int = 0
    num_computing: int = 0
    num_done: int = 0
    _failure: tuple[int, BadImage] | None = None
    _probabilities_NC: NDArray[np.float32] | None = None
    _features_ND: NDArray[np.float32] | None = None

    @property
    def num_under_way(self) -> int:
        """Images whose pixels are held, or soon will be."""
        return self.num_decoding + len(self.ready) + self.num_computing

    @property
    def is_computing(self) -> bool:
        """Whether every image is in a batch or was, and nothing is left to begin."""
        return self.num_computing + self.num_done == len(self.images)

    def ended(self) -> bool:
        """Whether nobody waits any more: answered, cancelled, or past its deadline, which ends it here."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.fail(late())
        return self.future.done()

    def take(self) -> int | None:
        """The next image to decode; None when there is none, or one before it is bad."""
        if self.num_taken == len(self.images) or self._failure is not None:
            return None
        self.num_taken += 1
        self.num_decoding += 1
        return self.num_taken - 1

    def decoded(self, index: int, found: Pixels | BadImage, seconds: float) -> None:
        """Notes what came out of a decoder. The first bad image in the request's order is the one that is named."""
        self.num_decoding -= 1
        if isinstance(found, BadImage):
            if self._failure is None or index < self._failure[0]:
                self._failure = index, found
            self.ready.clear()
        elif self._failure is None:
            self.ready.append(Ready(index, found, seconds))
        if self._failure is not None and not self.num_decoding:
            # Images are taken in order, so none before the bad one is still to come.
            place, error = self._failure
            self.fail(BadImage(f"image {place}: {error.detail}", code=error.code, index=place))

    def put_back(self, ready: Ready) -> None:
        """An image that was taken for a batch, and was not run, is the next one again."""
        self.num_computing -= 1
        self.ready.appendleft(ready)

    def computed(
        self,
        ready: Ready,
        probabilities_C: NDArray[np.float32],
        features_D: NDArray[np.float32],
        began: float,
        seconds: float,
    ) -> None:
        """Puts what came out for an image where it belongs, and answers when nothing is missing.

        Args:
            ready: the image.
            probabilities_C: of it.
            features_D: of it.
            began: when its batch did, by `time.monotonic`.
            seconds: that the batch took.
        """
        self.num_computing -= 1
        self.num_done += 1
        timing = self.timing
        timing.decode, timing.compute = ready.decode_seconds, seconds
        timing.queue = began - self.since - ready.decode_seconds
        if self._probabilities_NC is None or self._features_ND is None:
            self._probabilities_NC = np.empty((len(self.images), len(probabilities_C)), np.float32)
            self._features_ND = np.empty((len(self.images), len(features_D)), np.float32)
        self._probabilities_NC[ready.index], self._features_ND[ready.index] = probabilities_C, features_D
        if self.num_done < len(self.images):
            return
        finite_N = np.isfinite(self._probabilities_NC).all(1) & np.isfinite(self._features_ND).all(1)
        if not finite_N.all():
            self.fail(_not_finite(int(finite_N.argmin())))
        elif self._settle():
            self.future.set_result(Result(self._probabilities_NC, self._features_ND, self.timing))

    def fail(self, error: BaseException) -> None:
        """Ends the call with an error, unless it has ended."""
        if self._settle():
            self.future.set_exception(error)

    def _settle(self) -> bool:
        """Whether the future may be set now: whoever waits could have cancelled it at any moment."""
        return not self.future.done() and self.future.set_running_or_notify_cancel()


def _not_finite(index: int) -> BadImage:
    """No JSON holds such numbers, and nothing can be said by them."""
    return BadImage(
        f"image {index}: expected finite numbers of the version's graphs; found NaN or infinity; leave the image "
        "out, or ask another version or precision",
        code="image_not_computed",
        index=index,
    )


def shutting_down() -> Overloaded:
    """What ends a request that the process has no time for."""
    return Overloaded("expected a running service; found it shutting down; send it again")


def late() -> DeadlineExceeded:
    """What ends a request that is past its deadline."""
    return DeadlineExceeded(
        "expected an answer before the request's deadline; found none yet; allow more time, or send less"
    )
