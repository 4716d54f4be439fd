"""Ends calls at their deadlines, whatever the runners are at: a thread that sleeps until the next one."""

import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Callable

from app.serving.call import Call

# Of calls that ended before their deadline, kept beside as many that have not.
MAX_ENDED = 64
# Slept at once, before it looks again: a client may name a deadline beyond all that a thread can be told to wait
# (`threading.TIMEOUT_MAX`).
LONGEST_SECONDS = 3600.0


class Deadlines:
    """Watches calls. Safe to call from any thread.

    Args:
        expire: ends a call; told from the thread of the deadlines, without a lock.
    """

    def __init__(self, expire: Callable[[Call], None]) -> None:
        self._expire = expire
        self._changed = threading.Condition()
        # Weakly: a call that was answered is not kept, with its images, until it would have been late.
        self._waiting: list[tuple[float, int, weakref.ref[Call]]] = []
        self._numbers = itertools.count()
        self._most = MAX_ENDED
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="deadlines")
        self._thread.start()

    def watch(self, call: Call) -> None:
        """Ends the call at its deadline, if it has one and has not ended by then."""
        if call.deadline is None:
            return
        with self._changed:
            if len(self._waiting) > self._most:
                self._forget_ended()
            heapq.heappush(self._waiting, (call.deadline, next(self._numbers), weakref.ref(call)))
            if self._waiting[0][0] == call.deadline:
                self._changed.notify()

    def close(self) -> None:
        """Ends the thread; no call is ended any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _forget_ended(self) -> None:
        self._waiting = [item for item in self._waiting if (call := item[2]()) is not None and not call.future.done()]
        heapq.heapify(self._waiting)
        self._most = 2 * len(self._waiting) + MAX_ENDED

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                seconds = self._waiting[0][0] - time.monotonic() if self._waiting else LONGEST_SECONDS
                if seconds > 0:
                    self._changed.wait(min(seconds, LONGEST_SECONDS))
                    continue
                call = heapq.heappop(self._waiting)[2]()
            if call is not None:
                self._expire(call)
            # Nothing is held while there is nothing to do.
            del call
