"""Stores what a process observes, beside everything else: about once a minute, and at its end."""

import logging
import threading
from collections.abc import Callable, Iterable

from app.serving.observer import Due, Observer
from app.serving.parts import Parts

# With the time that writing takes, a process that is killed loses a minute.
PERIOD_SECONDS = 45.0

log = logging.getLogger(__name__)


class Saver:
    """Keeps storage up to date with an observer; what cannot be stored waits in memory, and is tried again.

    Args:
        observer: that has the sums.
        parts: where they go.
        published: which of these versions there are, by id; of a deleted one nothing is stored any more.
        period_seconds: after which what has changed is stored.
    """

    def __init__(
        self,
        observer: Observer,
        parts: Parts,
        published: Callable[[Iterable[str]], set[str]],
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        self._observer, self._parts, self._published = observer, parts, published
        self._period_seconds = period_seconds
        self._saving = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="save", daemon=True)
        self._thread.start()

    def save(self) -> None:
        """Stores what has changed since it was stored."""
        with self._saving:
            try:
                due = self._observer.due()
                published = self._published({one.key.version_id for one in due}) if due else set()
                for one in due:
                    if one.key.version_id in published:
                        self._store(one)
                    else:
                        self._observer.forget(one.key)
            except Exception:
                # Storage or database may be away, each with errors of its own; what is left is due at the next turn.
                log.exception("sums of what was answered were not stored; they are kept in memory until they are")
            self._observer.shrink()

    def close(self) -> None:
        """Ends the thread, and stores the rest."""
        self._ended.set()
        self._thread.join()
        self.save()

    def _store(self, due: Due) -> None:
        """A state, and nothing older beside it."""
        slot = due.slot
        # Before it is there: a call that fails may have stored it all the same.
        if due.span not in slot.stored:
            slot.stored.append(due.span)
        self._parts.put(due.key, due.span, due.moments)
        slot.num_stored = due.span.number
        for older in [span for span in slot.stored if span != due.span]:
            self._parts.remove(due.key, older)
            slot.stored.remove(older)

    def _work(self) -> None:
        while not self._ended.wait(self._period_seconds):
            self.save()
