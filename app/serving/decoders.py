"""Threads that decode the images of requests, ahead of the batches that they are for."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.artifact import preprocess
from app.errors import BadImage
from app.serving.call import Call, Pixels
from app.serving.runtime import BATCH_SIZE
from app.serving.turns import Turns

# Of one request, decoded ahead of what runs: two batches of pixels, however many images it brings.
WINDOW = 2 * BATCH_SIZE


class Decoders:
    """Projects take turns, image by image.

    Args:
        num_threads: images that are decoded side by side; of one request no more, lest others stand behind.
        lock: the engine's.
        decoded: told of each image without the lock: its request, its place there, its pixels or what is wrong with
            it, and the seconds that it took.
    """

    def __init__(
        self,
        num_threads: int,
        lock: threading.Condition,
        decoded: Callable[[Call, int, Pixels | BadImage, float], None],
    ) -> None:
        self._num_threads, self._lock, self._decoded = num_threads, lock, decoded
        self._waiting: Turns[tuple[Call, int]] = Turns()
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")

    def fill(self, call: Call) -> None:
        """Lines up images of a request while its window has room; under the lock."""
        while (
            call.num_decoding < self._num_threads and call.num_under_way < WINDOW and (index := call.take()) is not None
        ):
            self._waiting.put(call.project, (call, index))
            self._threads.submit(self._decode_next)

    def close(self) -> None:
        """Ends the threads; what waits is not decoded."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _decode_next(self) -> None:
        """Decodes an image of the project whose turn it is, which need not be the one that this was begun for."""
        with self._lock:
            call, index = self._waiting.take()
            if call.ended():
                return
        start = time.monotonic()
        found: Pixels | BadImage
        try:
            found = preprocess.load(call.images[index], call.model.spec.preprocess, call.max_pixels)
        except BadImage as error:
            # Of the error nothing but its words: it holds this frame, which holds the call, which is to hold what is
            # found; so images would stay until a collection.
            found = BadImage(error.detail, code=error.code)
        except Exception as error:
            with self._lock:
                call.fail(error)
            return
        self._decoded(call, index, found, time.monotonic() - start)
