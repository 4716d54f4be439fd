"""Looks at what is answered, beside the answers: features, scores and labels of each version, summed up.

Whoever answers only leaves the result in a queue; a thread of its own sums up what lies there. When more comes than it
takes away, images are skipped and counted: observing never makes a request wait.

Several processes of one service tell each other what they have seen lately through a `Board`, at most ten seconds late.
A `Saver` puts all of it into storage, where other services find it, and later ones.
"""

import json
import logging
import random
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.artifact import tensors
from app.serving import moments as sums
from app.serving.board import Board
from app.serving.call import Result
from app.serving.moments import Moments
from app.serving.slots import HOUR, Key, Series, Slot, Span, chosen

# Results that wait to be summed up hold their features: 10 MB at 1,280 of them.
MAX_WAITING = 2048
WAKE_AT = 256
IDLE_SECONDS = 1.0
# How old what another process has seen may be; a page has up to 140 KB for each version of 1,280 features.
PAGE_SECONDS = 10.0
# A version of 1,280 features that is asked all day takes 0.8 MB.
MAX_KEYS = 100

States = dict[Span, Moments]

log = logging.getLogger(__name__)


class Due(NamedTuple):
    """What storage does not have yet.

    Args:
        key: of the version.
        slot: whose state it is; of it, `num_stored` and `stored` belong to whoever stores it.
        span: the state.
        moments: a copy.
    """

    key: Key
    slot: Slot
    span: Span
    moments: Moments


class Observer:
    """Sums by version and alignment, of the last day. Safe to call from any thread.

    Args:
        share: of the requests that are looked at, from 0 to 1.
        board: where the processes of the service tell each other what they have seen; None for one process.
        clock: seconds since 1970.
    """

    def __init__(self, share: float = 1.0, board: Board | None = None, clock: Callable[[], float] = time.time) -> None:
        self._share, self._clock = share, clock
        self._waiting: deque[tuple[Key, Result]] = deque()
        # By version, and how many features and classes it has.
        self._skipped: Counter[tuple[Key, int, int]] = Counter()
        self._num_waiting = 0
        # Two locks: the first is held for a moment by whoever answers, the second while sums are made.
        self._queue_lock, self._sums_lock = threading.Lock(), threading.Lock()
        self._series: OrderedDict[Key, Series] = OrderedDict()
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

    def recent(self) -> dict[Key, Moments]:
        """What was seen of every version in the last hour, by all processes of the service."""
        oldest = self._clock() - HOUR
        found = self._own(oldest)
        for key, states in self._others():
            found.setdefault(key, {}).update(states)
        seen = {key: sums.total(states[span] for span in chosen(states, oldest)) for key, states in found.items()}
        return {key: moments for key, moments in seen.items() if moments is not None}

    def states(self, key: Key) -> States:
        """States of a version's slots: all that this process holds, and the others' of the last hour."""
        found = self._own(0, [key]).get(key, {})
        for other, states in self._others():
            if other == key:
                found |= states
        return found

    def due(self) -> list[Due]:
        """What storage does not have yet; what is too old to be stored or held is dropped."""
        self._sum_up()
        found = []
        with self._sums_lock:
            for key, series in list(self._series.items()):
                num_lost = series.tidy(self._clock())
                if num_lost:
                    log.error("%d images of %s were not stored in time: they are in no sum", num_lost, key.version_id)
                if not series.slots:
                    del self._series[key]
                found += [Due(key, slot, span, deepcopy(slot.moments)) for slot, span in series.due()]
        return found

    def forget(self, key: Key) -> None:
        """Drops a version that is deleted."""
        with self._sums_lock:
            self._series.pop(key, None)

    def shrink(self) -> None:
        """Drops the versions that were asked least lately, beyond MAX_KEYS."""
        with self._sums_lock:
            while len(self._series) > MAX_KEYS:
                self._series.popitem(last=False)

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        if self._board is not None:
            self._board.close()

    def _own(self, oldest: float, keys: Iterable[Key] | None = None) -> dict[Key, States]:
        self._sum_up()
        with self._sums_lock:
            wanted = self._series.keys() if keys is None else self._series.keys() & keys
            return {key: self._series[key].states(oldest) for key in wanted}

    def _others(self) -> Iterable[tuple[Key, States]]:
        """What the service's other processes have told of the last hour; those that have ended too."""
        for page in self._board.others() if self._board else ():
            yield from _read(page.data).items()

    def _page(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {}
        for key, states in self._own(self._clock() - HOUR).items():
            for span, moments in states.items():
                packed = sums.pack(moments)
                arrays |= {json.dumps([*key, *span, name]): array for name, array in packed.items()}
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
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(num_features, num_classes)
        self._series.move_to_end(key)
        return series.open(self._clock())


def _read(page: bytes) -> dict[Key, States]:
    """What another process has written."""
    parts: dict[tuple[Key, Span], dict[str, NDArray[Any]]] = {}
    for text, array in tensors.loads(page, "a page of the board").items():
        project, version_id, alignment, start, seconds, series, number, name = json.loads(text)
        place = Key(project, version_id, alignment), Span(start, seconds, series, number)
        parts.setdefault(place, {})[name] = array
    found: dict[Key, States] = {}
    for (key, span), arrays in parts.items():
        found.setdefault(key, {})[span] = sums.unpack(arrays)
    return found
