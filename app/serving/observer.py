"""Looks at what is answered, beside the answers: features, scores and labels of each version, summed up.

Whoever answers only leaves the result in a queue; a thread of its own sums up what lies there. When more comes than it
takes away, images are skipped and counted: observing never makes a request wait.

Several processes of one service add up what they have seen, through a `Board`; the others' part is up to ten seconds
old.
"""

import json
import random
import threading
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from app.artifact import tensors
from app.serving import moments as sums
from app.serving.board import Board
from app.serving.call import Result
from app.serving.moments import Moments, Slots, Window

# Results that wait to be summed up hold their features: 10 MB at 1,280 of them.
MAX_WAITING = 2048
WAKE_AT = 256
IDLE_SECONDS = 1.0
# How old what another process has seen may be; a page has 60 KB for each version of 1,280 features.
PAGE_SECONDS = 10.0
# A version of 1,280 features that is asked all day takes 0.7 MB.
MAX_KEYS = 100


class Key(NamedTuple):
    """What is observed apart.

    Args:
        version_id: of the version.
        alignment: id of what the features passed through; None without a domain.
    """

    version_id: str
    alignment: str | None


class Observer:
    """Sums by version and alignment since the service began. Safe to call from any thread.

    Args:
        share: of the requests that are looked at, from 0 to 1.
        board: where the processes of the service tell each other what they have seen; None for one process.
    """

    def __init__(self, share: float = 1.0, board: Board | None = None) -> None:
        self._share = share
        self._waiting: deque[tuple[Key, Result]] = deque()
        # By version, and how many features and classes it has.
        self._skipped: Counter[tuple[Key, int, int]] = Counter()
        self._num_waiting = 0
        # Two locks: the first is held for a moment by whoever answers, the second while sums are made.
        self._queue_lock, self._sums_lock = threading.Lock(), threading.Lock()
        self._slots: OrderedDict[Key, Slots] = OrderedDict()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="observe", daemon=True)
        self._thread.start()
        self._board = board
        if board is not None:
            board.keep(self._page)

    def watch(self, key: Key, future: Future[Result]) -> Future[Result]:
        """Looks at a request's result when it ends well.

        Args:
            key: what answers.
            future: the engine's.

        Returns:
            the same future.
        """
        future.add_done_callback(lambda ended: self._ended(key, ended))
        return future

    def within(self, key: Key, window: Window) -> Moments | None:
        """What was seen of a version, all that this process has answered so far; None when there was nothing."""
        return self.seen(window).get(key)

    def seen(self, window: Window) -> dict[Key, Moments]:
        """What was seen of every version, by all processes of the service."""
        found = self._own(window)
        for page in self._board.others() if self._board else ():
            # Of a process that has ended nobody knows how long its last hour has been over.
            if page.is_fresh or window == "start":
                for key, theirs in _read(page.data, window).items():
                    ours = found.get(key)
                    if ours is None:
                        found[key] = theirs
                    else:
                        ours.add(theirs)
        return found

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        if self._board is not None:
            self._board.close()

    def _own(self, window: Window) -> dict[Key, Moments]:
        self._sum_up()
        now = time.monotonic()
        with self._sums_lock:
            return {key: slots.within(window, now) for key, slots in self._slots.items()}

    def _page(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {}
        for window in get_args(Window):
            for key, moments in self._own(window).items():
                packed = sums.pack(moments)
                arrays |= {json.dumps([window, *key, name]): array for name, array in packed.items()}
        return tensors.dump(arrays)

    def _ended(self, key: Key, future: Future[Result]) -> None:
        """Runs under the engine's lock: a microsecond, and no arithmetic."""
        if future.cancelled() or future.exception() is not None:
            return
        result = future.result()
        number = len(result.probabilities_NC)
        looked = self._share > 0 and (self._share >= 1 or random.random() < self._share)
        with self._queue_lock:
            if looked and self._num_waiting + number <= MAX_WAITING:
                self._waiting.append((key, result))
                self._num_waiting += number
            else:
                self._skipped[key, result.features_ND.shape[1], result.probabilities_NC.shape[1]] += number
            full = self._num_waiting >= WAKE_AT
        if full:
            self._wake.set()

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            self._sum_up()

    def _sum_up(self) -> None:
        with self._sums_lock:
            with self._queue_lock:
                waiting, self._waiting = self._waiting, deque()
                skipped, self._skipped = self._skipped, Counter()
                self._num_waiting = 0
            by_key: dict[Key, list[Result]] = {}
            for key, result in waiting:
                by_key.setdefault(key, []).append(result)
            for key, results in by_key.items():
                features = [result.features_ND for result in results]
                probabilities = [result.probabilities_NC for result in results]
                seen = Moments.of(np.concatenate(features), np.concatenate(probabilities))
                self._open(key, len(seen.mean_D), len(seen.labels_C)).add(seen)
            for (key, num_features, num_classes), number in skipped.items():
                self._open(key, num_features, num_classes).num_skipped += number

    def _open(self, key: Key, num_features: int, num_classes: int) -> Moments:
        slots = self._slots.get(key)
        if slots is None:
            slots = self._slots[key] = Slots(num_features, num_classes)
            while len(self._slots) > MAX_KEYS:
                self._slots.popitem(last=False)
        self._slots.move_to_end(key)
        return slots.open(time.monotonic())


def _read(page: bytes, wanted: Window) -> dict[Key, Moments]:
    """What another process has written."""
    parts: dict[Key, dict[str, NDArray[Any]]] = {}
    for text, array in tensors.loads(page, "a page of the board").items():
        window, version_id, alignment, name = json.loads(text)
        if window == wanted:
            parts.setdefault(Key(version_id, alignment), {})[name] = array
    # Views of the page cannot be added to.
    return {key: sums.unpack({name: array.copy() for name, array in arrays.items()}) for key, arrays in parts.items()}
