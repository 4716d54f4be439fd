"""The one way from images to answers: decode in threads, batch what waits, run, give each request its rows.

A batch takes what is there when the processor is free, and never waits for more: alone, an image runs at once; under
load batches fill by themselves while those before run. Images for one backbone share its batches whichever heads they
are for. Requests take turns image by image, so a large one does not hold up a small one.

Batches run side by side on one core each: threads of one batch wait for each other, all the more while others decode
(two cores, EfficientNet-Lite0 with decoding: 86 instead of 76 images/s). An image that is alone gets all cores.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact import decoding, preprocess
from app.errors import BadImage, Overloaded
from app.serving import providers
from app.serving.call import Call, Images, Pixels, Ready, Result
from app.serving.lanes import Batch, Lane, Lanes, by_head
from app.serving.model import Graph, Served
from app.serving.pool import Pool
from app.serving.rate import Rate
from app.serving.runtime import BATCH_SIZE, Session
from app.serving.trial import Trials

# Of one request, decoded ahead of what runs: two batches of pixels, however many images it brings.
WINDOW = 2 * BATCH_SIZE


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


class Engine:
    """Decoders, batches and sessions of one process; every door submits here. Safe to call from any thread.

    Args:
        pool_bytes: what loaded graphs that nobody uses may hold together.
        num_threads: cores to use: so many threads decode, and so many run batches on one core each.
        limits: beyond which requests are refused.
    """

    def __init__(self, pool_bytes: int, num_threads: int, limits: Limits | None = None) -> None:
        self.pool: Pool[Session] = Pool(pool_bytes)
        self.trials = Trials()
        self._limits = limits or Limits()
        self._num_threads = num_threads
        self._decoders = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._changed = threading.Condition(threading.RLock())
        self._lanes = Lanes()
        self._num_images = self._num_idle = 0
        self._closed = False
        self.rate = Rate()
        self._runners = [threading.Thread(target=self._work, name=f"run-{number}") for number in range(num_threads)]
        for runner in self._runners:
            runner.start()

    @property
    def num_images(self) -> int:
        """Images in the engine, from submission to the end of their request."""
        return self._num_images

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in the engine."""
        return not self._num_images

    def check_room(self) -> None:
        """Refuses before work is put into a request; cheap enough to be asked before its body is read.

        Raises:
            Overloaded: too many images are before it; with the seconds after which to come again.
        """
        waiting, rate = self._num_images, self.rate.per_second
        wait = waiting / rate if rate else 0.0
        if waiting >= self._limits.max_images or wait > self._limits.max_wait_seconds:
            raise Overloaded(
                f"expected room for a request; found {waiting} images before it, about {wait:.1f} s of work; send it "
                "again later, or start more processes that serve",
                retry_after_seconds=max(1, round(wait / 2)),
            )

    def submit(self, model: Served, images: Images, deadline: float | None = None) -> Future[Result]:
        """Begins a request. Cancelling the future drops what of it has not run.

        Args:
            model: what is asked.
            images: at least one; encoded, or pixels uint8 [N, H, W, 3] in the model's size.
            deadline: by `time.monotonic`.

        Returns:
            a future that ends with BadImage (the first that cannot be used; its `index` in `extra`), DeadlineExceeded,
            or what loading and running the graphs raised.

        Raises:
            Overloaded: as `check_room`.
            ValueError: no image.
            RuntimeError: the engine is closed.
        """
        if not len(images):
            raise ValueError("expected at least one image; found none")
        self.check_room()
        call = Call(model, images, self._limits.max_pixels, deadline)
        with self._changed:
            if self._closed:
                raise RuntimeError("expected an open engine; found it closed")
            number = len(images)
            self._num_images += number
            call.future.add_done_callback(lambda _: self._leave(number))
            if isinstance(images, np.ndarray):
                now = time.monotonic()
                call.num_taken = len(images)
                call.ready.extend(Ready(index, pixels, now) for index, pixels in enumerate(images))
                self._queue(call)
            else:
                self._decode_more(call)
        return call.future

    def load(self, model: Served) -> None:
        """Brings a model's graphs into memory, for batches and for an image alone; runs them, and tries them.

        Raises:
            BundleError: they cannot be loaded.
            NotReady: they do not say of the sample what is stored.
        """
        shape = model.spec.preprocess
        for threads in {1, self._num_threads}:
            with self._lease(model.backbone, threads) as backbone:
                for number in providers.sizes(model.backbone.device):
                    blank_NHWC = np.zeros((number, shape.height, shape.width, 3), np.uint8)
                    features = _features(backbone, blank_NHWC)
                self._head(model, backbone, features)

    def unload(self, sha256: str) -> None:
        """Takes a graph out of memory, at the end of the runs that it is in."""
        for threads in {1, self._num_threads}:
            self.pool.discard(_key(sha256, threads))

    def close(self) -> None:
        """Ends the threads; requests under way fail."""
        with self._changed:
            self._closed = True
            waiting = list(self._lanes)
            self._lanes.clear()
            for call in waiting:
                call.fail(Overloaded("expected a running service; found it shutting down; send it again"))
            self._changed.notify_all()
        self._decoders.shutdown(wait=True, cancel_futures=True)
        for runner in self._runners:
            runner.join()
        self.pool.clear()

    def _leave(self, number: int) -> None:
        with self._changed:
            self._num_images -= number

    def _decode_more(self, call: Call) -> None:
        """Hands images to the decoders while the window has room; one for each thread, lest others stand behind."""
        while (
            not self._closed
            and call.num_decoding < self._num_threads
            and call.num_under_way < WINDOW
            and (index := call.take()) is not None
        ):
            self._decoders.submit(self._decode, call, index)

    def _decode(self, call: Call, index: int) -> None:
        with self._changed:
            if call.ended():
                return
        start = time.monotonic()
        found: Pixels | BadImage
        try:
            found = preprocess.load(call.images[index], call.model.spec.preprocess, call.max_pixels)
        except BadImage as error:
            found = error
        except Exception as error:
            with self._changed:
                call.fail(error)
            return
        with self._changed:
            call.decoded(index, found, time.monotonic() - start)
            self._decode_more(call)
            self._queue(call)

    def _queue(self, call: Call) -> None:
        """Lines a request up once it has something to run."""
        if not call.ready or self._closed:
            return
        self._lanes.put(call)
        self._changed.notify(len(call.ready))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._num_idle += 1
                while not (batch := self._lanes.take(self._num_idle)):
                    if self._closed:
                        return
                    self.rate.pause()
                    self._changed.wait()
                self._num_idle -= 1
            self._run(*batch)

    def _run(self, lane: Lane, batch: Batch) -> None:
        start = time.monotonic()
        try:
            threads = self._num_threads if self._num_images == 1 else 1
            pixels_NHWC = np.stack([ready.pixels_HWC for _, ready in batch])
            with self._lease(batch[0][0].model.backbone, threads) as backbone:
                self._run_heads(batch, backbone, _features(backbone, pixels_NHWC), start)
        except Exception as error:
            self._fail([call for call, _ in batch], error)
            return
        seconds = time.monotonic() - start
        with self._changed:
            self._lanes.ran(lane, len(batch), seconds)
            self.rate.count(len(batch))

    def _run_heads(self, batch: Batch, backbone: Session, features: NDArray[np.float32], start: float) -> None:
        for model, places in by_head(batch):
            try:
                probabilities, seen = self._head(model, backbone, features[places])
            except Exception as error:
                self._fail([batch[place][0] for place in places], error)
                continue
            self._answer([batch[place] for place in places], probabilities, seen, start)

    def _head(
        self, model: Served, backbone: Session, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities, and the features that the head saw; from graphs that have passed their trial."""
        with self._lease(model.head) as head:
            self.trials.check(model, backbone, head)
            if model.alignment is not None:
                with self._lease(model.alignment) as session:
                    features = session.run(features)[0]
            return head.run(features)[head.output_names.index("probabilities")], features

    def _lease(self, graph: Graph, threads: int = 1) -> AbstractContextManager[Session]:
        # A GPU has one session for all: cores are the processor's.
        threads = threads if graph.device == providers.CPU else 1
        return self.pool.lease(_key(graph.sha256, threads), lambda: graph.open(threads))

    def _answer(
        self,
        batch: Batch,
        probabilities: NDArray[np.float32],
        features: NDArray[np.float32],
        start: float,
    ) -> None:
        rows: dict[int, list[int]] = {}
        for place, (call, _) in enumerate(batch):
            rows.setdefault(id(call), []).append(place)
        seconds = time.monotonic() - start
        with self._changed:
            batch[0][0].timing.batches += 1
            for places in rows.values():
                call = batch[places[0]][0]
                waited = max(start - batch[place][1].since for place in places)
                call.timing.queue = max(call.timing.queue, waited)
                call.computed(
                    [batch[place][1].index for place in places], probabilities[places], features[places], seconds
                )
                self._decode_more(call)

    def _fail(self, calls: Sequence[Call], error: Exception) -> None:
        with self._changed:
            for call in calls:
                call.fail(error)


def _features(backbone: Session, pixels_NHWC: Pixels) -> NDArray[np.float32]:
    return backbone.run(pixels_NHWC)[backbone.output_names.index("features")]


def _key(sha256: str, threads: int) -> str:
    """Under which the pool holds a session."""
    return f"{sha256}/{threads}"
