"""Loaded graphs under a byte budget: least recently used ones go first, none while somebody uses it.

A model is two entries, its backbone's session and its head's, each keyed by the digest of its graph; so ten heads on
one backbone cost one backbone. A domain's alignment is a third. Sizes are known only after a load, and grow with what
is run at once; room is made before it is run. Entries in use stay, and so does the one used last, which would be the
next to be asked; where all of these hold more than the budget, they give back what they do not need at the moment.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)


class Resource(Protocol):
    """What a pool holds."""

    @property
    def size_bytes(self) -> int:
        """Memory held now."""

    def size_with(self, number: int) -> int:
        """Memory held once it works on so many items more at once."""

    def trim(self) -> None:
        """Gives back what it does not need at the moment, soon."""

    def close(self) -> None:
        """Gives the memory back."""


T = TypeVar("T", bound=Resource)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the pool was made, and what it holds now."""

    num_entries: int
    size_bytes: int
    num_loads: int
    num_hits: int
    num_evictions: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    source: str
    loaded: Future[T] = field(default_factory=Future)
    size_bytes: int = 0
    leases: int = 0
    discarded: bool = False
    is_told: bool = False


class Pool(Generic[T]):
    """Least-recently-used pool with leases and single-flight loading; safe for any number of threads.

    Args:
        budget_bytes: what entries may hold together.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._num_loads = self._num_hits = self._num_evictions = 0
        self._size_bytes = 0

    @contextmanager
    def lease(self, key: str, load: Callable[[], T], number: int = 0, source: str = "") -> Iterator[T]:
        """The entry of that key, loaded by the first who asks; it is not closed before the `with` block ends.

        Whoever asks during a load waits for it and gets its result, or its error where it would load from the same
        source; from another one it loads itself then. An error is not kept: the next call loads again.

        Args:
            key: of the entry.
            load: makes it.
            number: of items that it is to work on at once, beside those of other leases.
            source: what `load` reads, of which several may give the same entry.

        Raises:
            Exception: whatever `load` raises.
        """
        entry, first = self._take(key, source)
        while not first and entry.source != source and entry.loaded.exception() is not None:
            self._release(key, entry)
            entry, first = self._take(key, source)
        try:
            if first:
                self._load(key, entry, load)
            self._expect(key, entry, number)
            yield entry.loaded.result()
        finally:
            self._release(key, entry)

    def peek(self, key: str) -> T | None:
        """What is loaded under that key now, not to be run; None while it is being loaded, or where there is none."""
        with self._lock:
            entry = self._entries.get(key)
        if entry is None or not entry.loaded.done() or entry.loaded.exception() is not None:
            return None
        return entry.loaded.result()

    def discard(self, key: str) -> None:
        """Drops the entry, at the end of its last lease if it has any; nothing happens when there is none."""
        with self._lock:
            entry = self._entries.pop(key, None)
            closing = []
            if entry is not None:
                entry.discarded = True
                if not entry.leases:
                    closing.append(self._forget(entry))
        _close(closing)

    def clear(self) -> None:
        """Drops every entry, as `discard` does."""
        with self._lock:
            keys = list(self._entries)
        for key in keys:
            self.discard(key)

    def stats(self) -> Stats:
        """The pool's counters at this moment; bytes of discarded entries count until their last lease ends."""
        with self._lock:
            return Stats(len(self._entries), self._size_bytes, self._num_loads, self._num_hits, self._num_evictions)

    def _take(self, key: str, source: str) -> tuple[_Entry[T], bool]:
        with self._lock:
            entry = self._entries.get(key)
            first = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry(source)
                self._num_loads += 1
            else:
                self._num_hits += 1
                self._entries.move_to_end(key)
            entry.leases += 1
            return entry, first

    def _expect(self, key: str, entry: _Entry[T], number: int) -> None:
        """Makes room for what an entry is about to hold."""
        value = entry.loaded.result()
        with self._lock:
            self._resize(key, entry, value.size_with(number))
            closing = self._over_budget()
        _close(closing)

    def _load(self, key: str, entry: _Entry[T], load: Callable[[], T]) -> None:
        try:
            value = load()
            size_bytes = value.size_bytes
        except BaseException as error:
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
                entry.discarded = True
            entry.loaded.set_exception(error)
            return
        with self._lock:
            self._resize(key, entry, size_bytes)
            closing = self._over_budget()
        entry.loaded.set_result(value)
        _close(closing)

    def _resize(self, key: str, entry: _Entry[T], size_bytes: int) -> None:
        """Notes what an entry holds now, or is about to."""
        self._size_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes
        if size_bytes > self._budget_bytes and not entry.is_told:
            entry.is_told = True
            log.warning(
                "%s takes %d bytes, more than the pool's %d: nothing else stays loaded; raise the budget",
                key, size_bytes, self._budget_bytes,
            )  # fmt: skip

    def _release(self, key: str, entry: _Entry[T]) -> None:
        with self._lock:
            entry.leases -= 1
            closing = []
            if entry.loaded.done() and entry.loaded.exception() is None:
                self._resize(key, entry, entry.loaded.result().size_bytes)
            if entry.discarded:
                if not entry.leases and entry.loaded.exception() is None:
                    closing.append(self._forget(entry))
            else:
                self._entries.move_to_end(key)
                closing = self._over_budget()
        _close(closing)

    def _over_budget(self) -> list[T]:
        """Takes idle entries out, oldest first, until the rest fits; the caller closes them without the lock.

        The one used last stays: without, what is larger than the budget would be loaded anew for every call.
        """
        closing: list[T] = []
        if self._size_bytes <= self._budget_bytes:
            return closing
        for key in [key for key, entry in list(self._entries.items())[:-1] if not entry.leases]:
            self._num_evictions += 1
            closing.append(self._forget(self._entries.pop(key)))
            if self._size_bytes <= self._budget_bytes:
                return closing
        for entry in self._entries.values():
            if entry.loaded.done() and entry.loaded.exception() is None:
                entry.loaded.result().trim()
        return closing

    def _forget(self, entry: _Entry[T]) -> T:
        self._size_bytes -= entry.size_bytes
        return entry.loaded.result()


def _close(resources: list[T]) -> None:
    for resource in resources:
        resource.close()
