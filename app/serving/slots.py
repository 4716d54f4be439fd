"""Moments by time of the wall clock: slots of ten minutes, of an hour once that is over, and of a day in storage.

A series is what one process has seen of one version, each image once. Whoever reads may come upon a slot of it several
times, in memory, on a board and in storage, in an older state, or inside a longer one: `chosen` says which of them
count.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple
from uuid import uuid4

from app.serving.moments import Moments

Window = Literal["hour", "day", "week", "start"]

TEN_MINUTES, HOUR, DAY = 600, 3600, 86_400
WINDOW_SECONDS: dict[Window, float] = {"hour": HOUR, "day": DAY, "week": 7 * DAY, "start": float("inf")}
# What could not be stored by so long after the end of its day is given up; a day is joined twice as late.
LATE_SECONDS = DAY // 2
# The series of a joined day.
EVERYBODY = "whole"


class Key(NamedTuple):
    """What is observed apart.

    Args:
        project: the version's.
        version_id: of the version.
        alignment: id of what the features passed through; None without a domain.
    """

    project: str
    version_id: str
    alignment: str | None


class Span(NamedTuple):
    """A state of a slot.

    Args:
        start: seconds since 1970, a multiple of `seconds`.
        seconds: its length.
        series: who has seen it; `EVERYBODY` of a joined day.
        number: of images in it, which only grows; 0 of a joined day.
    """

    start: int
    seconds: int
    series: str
    number: int


def chosen(spans: Iterable[Span], oldest: float) -> list[Span]:
    """Those that count, in order: each image that was seen in a slot which began after `oldest`, once.

    Of the states of one slot the last one counts, and none that lies in a longer slot of its series, or in a day that
    was joined.
    """
    last: dict[tuple[int, int, str], Span] = {}
    for span in spans:
        place = span[:3]
        last[place] = max(span, last.get(place, span))
    found = (span for span in last.values() if not any(place in last for place in _wider(span)))
    return sorted(span for span in found if span.start > oldest)


def _wider(span: Span) -> Iterator[tuple[int, int, str]]:
    """Where what holds it would be."""
    if span.seconds < HOUR:
        yield span.start // HOUR * HOUR, HOUR, span.series
    if span.seconds < DAY:
        yield span.start // DAY * DAY, DAY, EVERYBODY


@dataclass(slots=True, eq=False)
class Slot:
    """A time in memory.

    Args:
        start: see `Span`.
        seconds: likewise.
        moments: of what was seen.
        num_stored: images of it that surely lie in storage.
        stored: states that may lie there, the newest last.
    """

    start: int
    seconds: int
    moments: Moments
    num_stored: int = 0
    stored: list[Span] = field(default_factory=list)

    def is_late(self, now: float) -> bool:
        """Whether it may not be stored any more."""
        return self.start // DAY * DAY + DAY + LATE_SECONDS <= now


class Series:
    """What one process sees of one version.

    Args:
        num_features: of an image.
        num_classes: of the model.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        self._shape = num_features, num_classes
        self._name = uuid4().hex
        # The oldest first.
        self.slots: deque[Slot] = deque()

    def open(self, now: float) -> Moments:
        """The slot of this moment, in seconds since 1970; the last one, where the clock was set back."""
        start = int(now) // TEN_MINUTES * TEN_MINUTES
        if not self.slots or self.slots[-1].start + self.slots[-1].seconds <= start:
            self.slots.append(Slot(start, TEN_MINUTES, Moments.empty(*self._shape)))
        return self.slots[-1].moments

    def span(self, slot: Slot) -> Span:
        """The slot's state."""
        return Span(slot.start, slot.seconds, self._name, slot.moments.num_answered)

    def states(self, oldest: float) -> dict[Span, Moments]:
        """Copies of the slots that began after that."""
        return {self.span(slot): deepcopy(slot.moments) for slot in self.slots if slot.start > oldest}

    def due(self) -> list[tuple[Slot, Span]]:
        """Slots that storage does not have, or has beside older states."""
        spans = [(slot, self.span(slot)) for slot in self.slots]
        return [(slot, span) for slot, span in spans if slot.num_stored < span.number or slot.stored != [span]]

    def tidy(self, now: float) -> int:
        """Joins hours that have been over for an hour, and drops what storage has had for a day, or will not get.

        Returns:
            images that were dropped, and never stored.
        """
        # First of all: an hour that lacked a slot would hide it in storage.
        self.slots = deque(_joined(self.slots, now))
        due = {slot for slot, _ in self.due()}
        late = {slot for slot in due if slot.is_late(now)}
        kept = (slot for slot in self.slots if slot in due or slot.start + slot.seconds > now - DAY)
        self.slots = deque(slot for slot in kept if slot not in late)
        return sum(slot.moments.num_answered - slot.num_stored for slot in late)


def _joined(slots: Iterable[Slot], now: float) -> Iterator[Slot]:
    for hour, group in groupby(slots, lambda slot: slot.start // HOUR):
        found = list(group)
        if found[0].seconds == HOUR or (hour + 2) * HOUR > now:
            yield from found
            continue
        whole = Slot(hour * HOUR, HOUR, found[0].moments)
        for slot in found[1:]:
            whole.moments.add(slot.moments)
        whole.num_stored = sum(slot.num_stored for slot in found)
        whole.stored = [span for slot in found for span in slot.stored]
        yield whole
