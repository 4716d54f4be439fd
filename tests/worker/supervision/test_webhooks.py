"""The sender of webhooks with real receivers, on both databases."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from app.db.base import now
from app.db.models import Project
from app.db.webhooks import Webhook, WebhookDelivery
from app.services import deliveries, webhooks
from tests import factories
from tests.conftest import wait_until
from tests.receivers import LOOPBACK, Reply, receiving
from worker.supervision.webhooks import FAILING_SLOTS, PROJECT_SLOTS, SLOTS_EACH, Courier, start


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_allowed": (LOOPBACK,), "webhook_timeout_seconds": 20.0})


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


def hook(database, receiver, number=1, **fields):
    """A webhook with deliveries that wait."""
    with database.write() as session:
        row = factories.webhook(session, url=receiver.url, **fields)
        return row.id, row.secret, [factories.delivery(session, row).id for _ in range(number)]


def rows(database):
    with database.read() as session:
        return session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)).all()


def states(database):
    return [row.state for row in rows(database)]


def again(database):
    with database.write() as session:
        for row in session.scalars(select(WebhookDelivery).where(WebhookDelivery.state == "pending")):
            row.next_attempt_at = now()


def test_what_arrives_is_verified_by_the_official_library(context, receiver):
    hook_id, secret, (delivery_id,) = hook(context.database, receiver)
    courier = Courier(context)
    assert courier.turn() == 1
    assert courier.wait(30)
    (got,) = receiver.got
    (row,) = rows(context.database)
    assert got.verified(secret) == json.loads(row.body)
    assert (got.body.decode(), got.headers["webhook-id"]) == (row.body, row.event_id)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"].startswith("Graft/")
    assert (row.state, row.status, row.num_attempts) == ("delivered", 204, 1)
    assert courier.turn() == 0
    # While a secret takes the other's place, both verify; a replay is the same event.
    with context.database.write() as session:
        new = webhooks.rotate(session, "default", hook_id).secret
        webhooks.replay(session, "default", hook_id, delivery_id)
    courier.turn()
    assert courier.wait(30)
    assert len(receiver.got) == 2
    assert receiver.got[1].verified(secret) == receiver.got[1].verified(new) == got.verified(secret)
    assert receiver.ids() == [row.event_id] * 2


def test_what_fails_is_tried_again(context, receiver):
    hook_id, secret, _ = hook(context.database, receiver)
    receiver.replies = [Reply(500, {}, b"oh"), Reply(302, {"Location": "/other"})]
    courier = Courier(context)
    for expected in ("pending", "pending", "delivered"):
        again(context.database)
        assert courier.turn() == 1
        assert courier.wait(30)
        assert states(context.database) == [expected]
    assert len(set(receiver.ids())) == 1
    assert [one.path for one in receiver.got] == ["/hook"] * 3
    for got in receiver.got:
        got.verified(secret)
    with context.database.read() as session:
        assert session.get_one(Webhook, hook_id).failing_since is None
        made = webhooks.attempts(session, rows(context.database)[0].id)
    assert [(one.status, one.answer) for one in made] == [(500, "oh"), (302, ""), (204, "")]


def test_an_attempt_that_nobody_expected_is_concluded(context, receiver):
    """One that were not would be sent for ever: what is not written down is not counted."""
    hook_id, *_ = hook(context.database, receiver, secret="whsec_\xe9")
    courier = Courier(context)
    courier.turn()
    assert courier.wait(30)
    (row,) = rows(context.database)
    assert (row.state, row.status, row.owner) == ("pending", None, None)
    assert row.error == "expected an answer; found ValueError"
    with context.database.read() as session:
        assert len(webhooks.attempts(session, row.id)) == 1
        assert session.get_one(Webhook, hook_id).failing_since is not None


def test_private_addresses_are_told_in_the_history(context, receiver):
    hook(context.database, receiver)
    courier = Courier(replace(context, settings=context.settings.model_copy(update={"webhook_allowed": ()})))
    courier.turn()
    assert courier.wait(30)
    (row,) = rows(context.database)
    assert (row.state, row.status) == ("pending", None)
    assert "expected a public address" in row.error
    assert receiver.got == []


def test_slow_receivers_block_nobody(context, receiver):
    courier = Courier(context)
    with receiving() as slow:
        slow.answering.clear()
        for _ in range(2 + FAILING_SLOTS // SLOTS_EACH):
            hook(context.database, slow, 3, failing_since=now())
        courier.turn()
        wait_until(lambda: len(slow.got) == FAILING_SLOTS, "as many as there may be")
        hook(context.database, slow, 3)
        assert courier.turn() == SLOTS_EACH
        *_, ids = hook(context.database, receiver, 4)

        def quick():
            courier.turn()
            return len(receiver.got) == len(ids)

        wait_until(quick, "all of the quick one", 15)
        assert len(slow.got) <= FAILING_SLOTS + SLOTS_EACH
        slow.answering.set()
        assert courier.wait(60)
    assert {row.id for row in rows(context.database) if row.state == "delivered"} >= set(ids)


def test_slow_receivers_of_one_project_leave_room_for_others(context, receiver):
    """They answer well, only late: nothing tells them from good ones before."""
    courier = Courier(context)
    with receiving() as slow:
        slow.answering.clear()
        for _ in range(1 + PROJECT_SLOTS // SLOTS_EACH):
            hook(context.database, slow, 3)
        courier.turn()
        wait_until(lambda: len(slow.got) == PROJECT_SLOTS, "as many as a project may have")
        assert courier.turn() == 0
        with context.database.write() as session:
            session.add(Project(id="other"))
        *_, ids = hook(context.database, receiver, 4, project_id="other")

        def quick():
            courier.turn()
            return len(receiver.got) == len(ids)

        wait_until(quick, "all of the other project", 15)
        assert len(slow.got) == PROJECT_SLOTS
        slow.answering.set()
        assert courier.wait(60)


def test_two_workers_send_nothing_twice(context, receiver):
    hook(context.database, receiver, 12)
    threads = [start(context) for _ in range(2)]
    wait_until(lambda: set(states(context.database)) == {"delivered"}, "all of them")
    context.stopping.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(receiver.ids()) == sorted(row.event_id for row in rows(context.database))


def test_the_end_waits_for_no_receiver(context, receiver):
    hook(context.database, receiver)
    receiver.answering.clear()
    thread = start(context)
    wait_until(lambda: receiver.got, "an attempt")
    context.stopping.set()
    thread.join(15)
    assert not thread.is_alive()
    # Nobody has written down how it ended, and for a while nobody else sends it; then somebody does.
    with context.database.write() as session:
        assert deliveries.due(session) == []
        row = session.scalars(select(WebhookDelivery)).one()
        assert (row.state, row.num_attempts) == ("pending", 1)
        assert 15 < (row.next_attempt_at - now()).total_seconds() < 36
    receiver.answering.set()
    wait_until(lambda: states(context.database) == ["delivered"], "the end of the attempt")
