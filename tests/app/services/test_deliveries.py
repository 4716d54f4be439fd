"""Deliveries as workers take and end them, on both databases."""

from collections import Counter
from datetime import timedelta

import pytest

from app.db.base import now
from app.db.webhooks import Webhook, WebhookAttempt, WebhookDelivery
from app.services import deliveries, webhooks
from app.services.deliveries import Answer, claim, conclude, due
from tests import factories

FINE, BROKEN = Answer(0.1, 200, None, "thanks"), Answer(0.1, 500, None, "oh")


@pytest.fixture
def hook(database):
    with database.write() as session:
        return factories.webhook(session).id


def waiting(database, hook, number=1, **fields):
    with database.write() as session:
        row = session.get_one(Webhook, hook)
        return [factories.delivery(session, row, **fields).id for _ in range(number)]


def take(database, hook, owner="me", most=10):
    with database.write() as session:
        return claim(session, owner, {hook: most}, 60.0)


def end(database, claimed, answer, owner="me", days=5.0):
    with database.write() as session:
        return conclude(session, claimed, owner, answer, days)


def row(database, kind, key):
    with database.read() as session:
        return session.get_one(kind, key)


def heard(database):
    with database.read() as session:
        return [(one.webhook_id, one.failing) for one in due(session)]


def again(database, delivery_id):
    """Makes the next attempt due."""
    with database.write() as session:
        session.get_one(WebhookDelivery, delivery_id).next_attempt_at = now()


def test_what_waits_is_taken_once(database, hook):
    ids = waiting(database, hook, 3)
    assert heard(database) == [(hook, False)]
    first, second = take(database, hook, most=2), take(database, hook, "other")
    assert [len(first), len(second)] == [2, 1]
    assert {one.id for one in [*first, *second]} == set(ids)
    assert take(database, hook) == []
    assert heard(database) == []
    found = row(database, WebhookDelivery, first[0].id)
    assert (first[0].body.decode(), first[0].event_id, first[0].url) == (
        found.body,
        found.event_id,
        "http://127.0.0.1:1/",
    )


def test_two_workers_at_once_take_nothing_twice(database, hook, second):
    ids = waiting(database, hook, 4)
    with database.write() as session:
        first = claim(session, "me", {hook: 2}, 60)
        other = second(lambda session: claim(session, "other", {hook: 4}, 60))
    taken = Counter(one.id for one in [*first, *other.result(30)])
    assert taken == Counter(ids)


def test_what_a_dead_worker_took_is_taken_again(database, hook):
    waiting(database, hook)
    (lost,) = take(database, hook, "dead")
    again(database, lost.id)
    (found,) = take(database, hook)
    assert (found.id, found.event_id) == (lost.id, lost.event_id)
    # It was not dead after all: what it says has no effect any more.
    assert end(database, lost, FINE, "dead") is None
    assert row(database, WebhookDelivery, found.id).state == "pending"
    assert end(database, found, FINE) == "delivered"
    ended = row(database, WebhookDelivery, found.id)
    assert (ended.state, ended.num_attempts, ended.status, ended.next_attempt_at) == ("delivered", 2, 200, None)
    with database.read() as session:
        assert [(one.number, one.answer) for one in webhooks.attempts(session, found.id)] == [(2, "thanks")]


def test_failures_are_tried_again_for_a_day_and_then_no_more(database, hook):
    (delivery_id,) = waiting(database, hook)
    waits = []
    for number in range(1, deliveries.MAX_ATTEMPTS + 1):
        (claimed,) = take(database, hook)
        state = end(database, claimed, BROKEN if number % 2 else Answer(15.0, error="none"))
        found = row(database, WebhookDelivery, delivery_id)
        assert (found.num_attempts, found.owner) == (number, None)
        if number < deliveries.MAX_ATTEMPTS:
            assert state == "pending"
            waits.append((found.next_attempt_at - now()).total_seconds())
            again(database, delivery_id)
    assert (state, found.state, found.next_attempt_at, found.status) == ("failed", "failed", None, 500)
    assert take(database, hook) == []
    assert 3 < waits[0] < 7
    assert sorted(waits[:6]) == waits[:6]
    assert 18 * 3600 < sum(waits) < 33 * 3600
    with database.read() as session:
        made = webhooks.attempts(session, delivery_id)
        assert [one.number for one in made] == list(range(1, deliveries.MAX_ATTEMPTS + 1))
        assert (made[1].status, made[1].error, made[1].seconds) == (None, "none", 15.0)


def test_an_attempt_whose_worker_died_counts(database, hook, monkeypatch):
    monkeypatch.setattr(deliveries, "JITTER", 0.0)
    (delivery_id,) = waiting(database, hook)
    taken, waits = take(database, hook), {}
    for number in range(1, deliveries.MAX_ATTEMPTS + 1):
        assert [one.id for one in taken] == [delivery_id]
        # The lease ends, and whoever looks next finds that nothing was written down.
        again(database, delivery_id)
        taken, found = take(database, hook), row(database, WebhookDelivery, delivery_id)
        if not taken and found.state == "pending":
            assert found.owner is None
            waits[number] = (found.next_attempt_at - now()).total_seconds()
            again(database, delivery_id)
            taken = take(database, hook)
    assert list(waits) == list(range(3, deliveries.MAX_ATTEMPTS))
    assert [waits[3], waits[7]] == pytest.approx([80 - 60, 20480 - 60], abs=5)
    assert (found.state, found.error, found.owner, found.next_attempt_at) == ("failed", deliveries.LOST, None, None)
    assert heard(database) == []


def test_a_replay_does_not_wait_for_a_worker_that_died(database, hook):
    (delivery_id,) = waiting(database, hook)
    with database.write() as session:
        session.get_one(WebhookDelivery, delivery_id).num_attempts = 7
    take(database, hook)
    for under_way in (True, False):
        if not under_way:
            again(database, delivery_id)
        with database.write() as session:
            webhooks.replay(session, "default", hook, delivery_id)
        assert len(take(database, hook)) == (not under_way)


def test_a_receiver_says_when_to_come_again(database, hook):
    waiting(database, hook)
    for asked, expected in ((3600.0, 3600.0), (10.0**9, 24 * 3600.0)):
        (claimed,) = take(database, hook)
        end(database, claimed, Answer(0.1, 503, retry_after_seconds=asked))
        wait = row(database, WebhookDelivery, claimed.id).next_attempt_at - now()
        assert wait.total_seconds() == pytest.approx(expected, abs=60)
        again(database, claimed.id)
    assert deliveries.delay(1, 0.0) > 3


def test_a_receiver_that_is_gone_is_not_asked_again(database, hook):
    waiting(database, hook, 2)
    first, _ = take(database, hook)
    assert end(database, first, Answer(0.1, 410)) == "failed"
    found = row(database, Webhook, hook)
    assert (found.enabled, found.disabled_reason) == (False, "gone")
    assert heard(database) == []


def test_a_receiver_that_fails_for_days_is_disabled_and_one_that_recovers_is_not(database, hook):
    first, *_ = waiting(database, hook, 3)
    one, two, three = take(database, hook)
    assert end(database, one, BROKEN) == "pending"
    began = row(database, Webhook, hook).failing_since
    again(database, first)
    assert heard(database) == [(hook, True)]
    assert end(database, two, FINE) == "delivered"
    assert row(database, Webhook, hook).failing_since is None
    with database.write() as session:
        session.get_one(Webhook, hook).failing_since = began - timedelta(days=5)
    assert end(database, three, BROKEN) == "pending"
    found = row(database, Webhook, hook)
    assert (found.enabled, found.disabled_reason) == (False, "failing")
    assert heard(database) == []
    # What waits is not lost: it is sent once somebody enables it again.
    with database.write() as session:
        session.get_one(Webhook, hook).enabled = True
    assert heard(database) == [(hook, True)]


def test_two_secrets_sign_while_one_takes_the_others_place(database, hook):
    (delivery_id,) = waiting(database, hook)
    with database.write() as session:
        old = session.get_one(Webhook, hook).secret
        new = webhooks.rotate(session, "default", hook).secret
    assert take(database, hook)[0].keys == (new, old)
    again(database, delivery_id)
    with database.write() as session:
        session.get_one(Webhook, hook).previous_until = now()
    assert take(database, hook)[0].keys == (new,)


def test_what_is_old_is_removed_with_its_attempts(database, hook):
    old, kept = waiting(database, hook, 2)
    for claimed in take(database, hook):
        end(database, claimed, FINE)
    with database.write() as session:
        session.get_one(WebhookDelivery, old).created_at = now() - timedelta(days=31)
    with database.write() as session:
        assert list(deliveries.expire(session, 30)) == [old]
    with database.read() as session:
        assert [one.id for one in session.query(WebhookDelivery)] == [kept]
        assert [one.delivery_id for one in session.query(WebhookAttempt)] == [kept]


def test_a_webhook_that_is_deleted_while_it_is_sent_to(database, hook):
    waiting(database, hook)
    (claimed,) = take(database, hook)
    with database.write() as session:
        webhooks.delete(session, "default", hook)
    assert end(database, claimed, FINE) is None
