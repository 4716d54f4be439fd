"""Slots of the wall clock: which of their states count, how they are joined, and when they are dropped."""

from itertools import chain

import numpy as np
import pytest

from app.serving.moments import Moments, total
from app.serving.slots import DAY, EVERYBODY, HOUR, LATE_SECONDS, TEN_MINUTES, Series, Span, chosen

MIDNIGHT = 20_000 * DAY
A, B = "a" * 32, "b" * 32


def images(number):
    return Moments.of(np.full((number, 3), 2.0, np.float32), np.tile(np.array([[0.25, 0.75]], np.float32), (number, 1)))


def stored(series):
    """As a saver leaves it."""
    for slot, span in series.due():
        slot.stored, slot.num_stored = [span], span.number


def test_of_all_states_each_image_counts_once():
    old, new = Span(MIDNIGHT, TEN_MINUTES, A, 3), Span(MIDNIGHT, TEN_MINUTES, A, 5)
    later, other = Span(MIDNIGHT + HOUR, TEN_MINUTES, A, 1), Span(MIDNIGHT, TEN_MINUTES, B, 2)
    hour, half = Span(MIDNIGHT, HOUR, A, 9), Span(MIDNIGHT + 3 * TEN_MINUTES, TEN_MINUTES, A, 4)
    assert chosen([new, old, later, other, new], 0) == sorted([new, later, other])
    # An hour holds what its series has seen in it, and nothing of another one.
    assert chosen([new, old, half, later, other, hour], 0) == sorted([hour, later, other])
    assert chosen([new, hour, other, later], MIDNIGHT) == [later]
    # What lies in an hour that began too early is out with it.
    assert chosen([half, hour], MIDNIGHT + TEN_MINUTES) == []
    day, tomorrow = Span(MIDNIGHT, DAY, EVERYBODY, 0), Span(MIDNIGHT + DAY, TEN_MINUTES, A, 1)
    assert chosen([new, hour, other, later, day, tomorrow], 0) == [day, tomorrow]


@pytest.mark.parametrize("start", [MIDNIGHT, MIDNIGHT + 12_345.6])
def test_memory_does_not_grow_and_nothing_is_lost_from_it_for_a_day(start):
    """One image in ten minutes, for two days, all of which is stored."""
    series = Series(3, 2)
    for number in range(288):
        now = start + number * TEN_MINUTES
        series.open(now).add(images(1))
        assert series.tidy(now) == 0
        stored(series)
        assert len(series.slots) <= 12 + 24 + 1
    spans = [series.span(slot) for slot in series.slots]
    assert chosen(spans, 0) == spans
    assert total(series.states(now - HOUR).values()).num_images == 6
    assert 139 <= total(series.states(now - DAY).values()).num_images <= 144
    # Nothing is asked any more.
    assert series.tidy(now + DAY - HOUR) == 0
    assert {slot.seconds for slot in series.slots} <= {HOUR}
    stored(series)
    assert series.tidy(now + DAY + HOUR) == 0
    assert not series.slots


def test_what_cannot_be_stored_is_kept_until_it_is_too_late():
    series = Series(3, 2)
    for number in range(144):
        series.open(MIDNIGHT + number * TEN_MINUTES).add(images(2))
        if number == 71:
            stored(series)
    end = MIDNIGHT + DAY
    assert series.tidy(end + LATE_SECONDS - 1) == 0
    assert sum(span.number - slot.num_stored for slot, span in series.due()) == 144
    assert series.tidy(end + LATE_SECONDS) == 144
    assert not series.slots


def test_an_hour_takes_the_place_of_its_slots():
    series = Series(3, 2)
    for number in range(6):
        series.open(MIDNIGHT + number * TEN_MINUTES).add(images(number + 1))
    stored(series)
    states = list(chain.from_iterable(slot.stored for slot in series.slots))
    series.tidy(MIDNIGHT + 2 * HOUR - 1)
    assert (len(series.slots), series.due()) == (6, [])
    series.tidy(MIDNIGHT + 2 * HOUR)
    ((slot, span),) = series.due()
    assert (span.start, span.seconds, span.number, slot.num_stored) == (MIDNIGHT, HOUR, 21, 21)
    # All of which are to be removed behind it.
    assert slot.stored == states
    assert chosen([*states, span], 0) == [span]


def test_an_hour_is_whole_after_a_process_has_slept_for_a_day():
    series = Series(3, 2)
    for number in range(6):
        series.open(MIDNIGHT + number * TEN_MINUTES).add(images(1))
    stored(series)
    series.tidy(MIDNIGHT + DAY + 3 * TEN_MINUTES)
    assert [span.number for _, span in series.due()] == [6]


def test_a_clock_that_is_set_back_opens_no_slot_twice():
    series = Series(3, 2)
    series.open(MIDNIGHT + HOUR).add(images(1))
    series.open(MIDNIGHT).add(images(1))
    assert [(slot.start, slot.moments.num_images) for slot in series.slots] == [(MIDNIGHT + HOUR, 2)]
    series.tidy(MIDNIGHT + 9 * HOUR)
    series.open(MIDNIGHT + HOUR + TEN_MINUTES).add(images(1))
    assert [(slot.seconds, slot.moments.num_images) for slot in series.slots] == [(HOUR, 3)]


def test_images_that_were_not_looked_at_are_due_as_well():
    series = Series(3, 2)
    series.open(MIDNIGHT).add(images(1))
    stored(series)
    assert series.due() == []
    series.open(MIDNIGHT).num_skipped += 3
    ((slot, span),) = series.due()
    assert (span.number, slot.num_stored) == (4, 1)
