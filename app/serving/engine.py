"""The one way from images to answers: decode in threads, batch what waits, run, give each request its rows.

A batch takes what is there when the processor is free, and never waits for more: alone, an image runs at once; under
load batches fill by themselves while those before run. Images for one backbone share its batches whichever heads they
are for. Projects take turns, and of each its requests, image by image: so a large one does not hold up a small one, and
a project that asks much does not hold up the others. Decoders take turns likewise.

What is not in memory is loaded by threads of their own, one for each graph; what needs it waits beside, and nothing
else does.

Batches run side by side on one core each: threads of one batch wait for each other, all the more while others decode
(two cores, EfficientNet-Lite0 with decoding: 86 instead of 76 images/s). An image that is alone gets all cores.
"""

import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import BundleError
from app.errors import BadImage, Unavailable
from app.serving.call import Call, Images, Pixels, Ready, Result, late, shutting_down
from app.serving.deadlines import Deadlines
from app.serving.decoders import Decoders
from app.serving.lanes import RUNNING_SHARE, Batch, Lane, Lanes, by_head
from app.serving.model import Served
from app.serving.room import Limits, Room
from app.serving.runtime import Session
from app.serving.sessions import NUM_LOADERS, Sessions


class Engine:
    """Decoders, batches and sessions of one process; every door submits here. Safe to call from any thread.

    Args:
        pool_bytes: what loaded graphs that nobody uses may hold together.
        num_threads: cores to use: so many threads decode, and so many run batches on one core each.
        limits: beyond which requests are refused.
    """

    def __init__(self, pool_bytes: int, num_threads: int, limits: Limits | None = None) -> None:
        self._sessions = Sessions(pool_bytes, num_threads)
        self.pool, self.trials = self._sessions.pool, self._sessions.trials
        self.load, self.unload = self._sessions.load, self._sessions.unload
        self._limits = limits or Limits()
        self.room = Room(self._limits, num_threads)
        self._num_threads = num_threads
        self._loaders = ThreadPoolExecutor(NUM_LOADERS, thread_name_prefix="load")
        self._changed = threading.Condition(threading.RLock())
        self._decoders = Decoders(num_threads, self._changed, self._decoded)
        self._deadlines = Deadlines(self._expire)
        self._lanes = Lanes(int(pool_bytes * RUNNING_SHARE / num_threads))
        # What came for a graph while it is being loaded, by what is missing.
        self._waiting: dict[str, Batch] = {}
        # From submission to the end, by `id`; so closing forgets none, wherever it is.
        self._calls: dict[int, Call] = {}
        self._num_idle = 0
        self._closed = False
        self._runners = [threading.Thread(target=self._work, name=f"run-{number}") for number in range(num_threads)]
        for runner in self._runners:
            runner.start()

    @property
    def num_images(self) -> int:
        """Images in the engine, from submission to the end of their request."""
        return self.room.num_images

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in the engine."""
        return not self.num_images

    def check_room(self, backbones: Collection[str] = (), project: str = "") -> None:
        """Refuses before work is put into a request; cheap enough to be asked before its body is read.

        Args:
            backbones: files of those that may answer it; unknown where there is none.
            project: whose request it is.

        Raises:
            Overloaded: too many images are before it; with the seconds after which to come again.
        """
        self.room.check(backbones, project)

    def submit(self, model: Served, images: Images, deadline: float | None = None, project: str = "") -> Future[Result]:
        """Begins a request. Cancelling the future drops what of it has not run.

        Args:
            model: what is asked.
            images: at least one; encoded, or pixels uint8 [N, H, W, 3] in the model's size.
            deadline: by `time.monotonic`.
            project: whose request it is.

        Returns:
            a future that ends with BadImage (the first that cannot be used; its `index` in `extra`), DeadlineExceeded
            (at the deadline), NotReady, Overloaded (the engine is closed meanwhile), or what running the graphs raised.

        Raises:
            Overloaded: as `check_room`; or the engine is closed.
            NotReady: the version has failed its trial a moment ago.
            ValueError: no image.
        """
        if not len(images):
            raise ValueError("expected at least one image; found none")
        backbone, number = model.backbone.file, len(images)
        self.check_room((backbone,), project)
        self.trials.check_lately(model)
        call = Call(model, images, self._limits.max_pixels, deadline, project)
        with self._changed:
            if self._closed:
                raise shutting_down()
            key = id(call)
            self._calls[key] = call
            self.room.enter(backbone, number, project)
            # Not with the call itself: it would hold itself, and its images, until garbage is collected.
            call.future.add_done_callback(lambda _: self._leave(key, backbone, number, project))
            if isinstance(images, np.ndarray):
                call.num_taken = number
                call.ready.extend(Ready(index, pixels) for index, pixels in enumerate(images))
                self._queue(call)
            else:
                self._decode_more(call)
        self._deadlines.watch(call)
        return call.future

    def close(self) -> None:
        """Ends the threads. Requests that are computing altogether are answered, all others fail; none stays open."""
        with self._changed:
            self._closed = True
            loading = [call for batch in self._waiting.values() for call, _ in batch]
            self._end([*loading, *(call for call in self._calls.values() if not call.is_computing)])
            self._lanes.clear()
            self._changed.notify_all()
        self._deadlines.close()
        self._decoders.close()
        self._loaders.shutdown(wait=True)
        for runner in self._runners:
            runner.join()
        self.pool.clear()

    def _end(self, calls: Iterable[Call]) -> None:
        self._fail(calls, shutting_down())

    def _expire(self, call: Call) -> None:
        self._fail([call], late())

    def _leave(self, key: int, backbone: str, number: int, project: str) -> None:
        with self._changed:
            del self._calls[key]
            self.room.leave(backbone, number, project)

    def _decode_more(self, call: Call) -> None:
        if not self._closed:
            self._decoders.fill(call)

    def _decoded(self, call: Call, index: int, found: Pixels | BadImage, seconds: float) -> None:
        """Hands an image to the runners, or runs it here when it is alone: one would have to wake up for it first.

        As long as another thread can decode what comes meanwhile.
        """
        with self._changed:
            call.decoded(index, found, seconds)
            self._decode_more(call)
            if self.num_images > 1 or self._num_threads == 1:
                self._queue(call)
                return
            work = self._next(1) if self._line_up(call) else None
        if work is not None:
            self._compute(*work)

    def _line_up(self, call: Call) -> bool:
        """Whether a request has something to run, which is in line from now on."""
        if not call.ready or self._closed:
            return False
        self._lanes.put(call)
        return True

    def _queue(self, call: Call) -> None:
        """Lines a request up for the runners."""
        if self._line_up(call):
            self._changed.notify(len(call.ready))

    def _next(self, num_idle: int) -> tuple[Lane, Batch, int] | None:
        """What of the next batch can be run at once, on so many threads; None when nothing waits."""
        taken = self._lanes.take(num_idle)
        if taken is None:
            return None
        lane, batch = taken
        threads = self._num_threads if self.num_images == 1 else 1
        return lane, self._at_hand(batch, threads), threads

    def _work(self) -> None:
        while True:
            with self._changed:
                self._num_idle += 1
                while (work := self._next(self._num_idle)) is None:
                    if self._closed:
                        return
                    self._changed.wait()
                self._num_idle -= 1
            self._compute(*work)

    def _compute(self, lane: Lane, batch: Batch, threads: int) -> None:
        """Runs a batch, and notes how long that took."""
        start = time.monotonic()
        if not batch or self._run(batch, threads) is not None:
            return
        now = time.monotonic()
        with self._changed:
            self._lanes.ran(lane, len(batch), now - start)
            since, is_last = min(call.since for call, _ in batch), not self._lanes.holds(lane[0])
            self.room.ran(lane[0], len(batch), now - since, now - start, is_last=is_last)

    def _at_hand(self, batch: Batch, threads: int) -> Batch:
        """What of a batch can be run at once; the rest goes to whoever loads what it needs."""
        ready: Batch = []
        missing: dict[str, Batch] = {}
        for model, places in by_head(batch):
            key = self._sessions.missing(model, threads)
            (ready if key is None else missing.setdefault(key, [])).extend(batch[place] for place in places)
        for key, part in missing.items():
            if key in self._waiting:
                self._waiting[key] += part
            else:
                self._waiting[key] = []
                self._loaders.submit(self._load_and_run, key, part, threads)
        return ready

    def _load_and_run(self, key: str, batch: Batch, threads: int) -> None:
        """Loads by running what asked first, so that nothing takes the graphs away in between."""
        with self._changed:
            batch = [one for one in batch if not one[0].ended()]
            if self._closed:
                self._end([call for call, _ in batch])
                batch = []
        error = self._run(batch, threads) if batch else None
        # Else all would wait for storage that is away one after the other, and fill the engine meanwhile.
        away = error if type(error) is Unavailable else None
        with self._changed:
            for call, ready in reversed(self._waiting.pop(key)):
                call.put_back(ready)
                is_away = away is not None and self._sessions.missing(call.model, threads) == key
                if refusal := (away if is_away else self.trials.refusal(call.model)):
                    call.fail(refusal)
                self._queue(call)

    def _run(self, batch: Batch, threads: int) -> Exception | None:
        """Runs a batch and answers; why what it needs could not be run, where that is so."""
        start = time.monotonic()
        try:
            pixels_NHWC = np.stack([ready.pixels_HWC for _, ready in batch])
            model = batch[0][0].model
            with self._sessions.lease(model.backbone, threads, len(batch)) as backbone:
                features_ND = self._sessions.features(model, backbone, pixels_NHWC)
                return self._run_heads(batch, backbone, features_ND, start)
        except BundleError as error:
            for model, places in by_head(batch):
                model.read_anew(backbone=True)
                self._fail([batch[place][0] for place in places], self.trials.failed(model, str(error)))
            return error
        except Exception as error:
            self._fail([call for call, _ in batch], error)
            return error

    def _run_heads(
        self, batch: Batch, backbone: Session, features_ND: NDArray[np.float32], start: float
    ) -> Exception | None:
        failed = None
        for model, places in by_head(batch):
            is_whole = len(places) == len(batch)
            part, rows = (batch, features_ND) if is_whole else ([batch[place] for place in places], features_ND[places])
            try:
                probabilities, seen = self._sessions.head(model, backbone, rows)
            except Exception as error:
                self._fail([call for call, _ in part], error)
                failed = error
                continue
            self._answer(part, probabilities, seen, start)
        return failed

    def _answer(
        self, batch: Batch, probabilities: NDArray[np.float32], features: NDArray[np.float32], start: float
    ) -> None:
        seconds = time.monotonic() - start
        with self._changed:
            batch[0][0].timing.batches += 1
            for place, (call, ready) in enumerate(batch):
                call.computed(ready, probabilities[place], features[place], start, seconds)
                self._decode_more(call)

    def _fail(self, calls: Iterable[Call], error: Exception) -> None:
        with self._changed:
            for call in calls:
                call.fail(error)
