"""Deliveries as the worker sees them: claim, conclude, expire.

Several workers send; a claim lasts for a while and is fenced by its owner, so that nothing is sent twice as long as
whoever claimed it lives, and everything once more when it died. Receivers know an event that they have seen by its
`webhook-id`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.webhooks import Webhook, WebhookAttempt, WebhookDelivery
from app.services import webhooks
from app.services.outbox import PENDING

DELIVERED, FAILED = "delivered", "failed"
# 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 5.7 h, then every 6 h: eleven attempts in 25.6 hours.
FIRST_SECONDS, FACTOR, LONGEST_SECONDS = 5.0, 4.0, 6 * 3600.0
MAX_ATTEMPTS = 11
JITTER = 0.25
LOST = "expected the worker to write down how its last attempt ended; found that it did not; replay the delivery"
MAX_RETRY_AFTER_SECONDS = 24 * 3600.0
ANSWERED_WELL, GONE = range(200, 300), 410


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is to be sent now, and all that is needed to do so."""

    id: str
    project: str
    webhook_id: str
    event_id: str
    url: str
    body: bytes
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended.

    Args:
        seconds: that it took.
        status: of the receiver's answer; None without one.
        error: why there was none; None with one.
        text: the beginning of the answer's body.
        retry_after_seconds: that the receiver asks to wait.
    """

    seconds: float
    status: int | None = None
    error: str | None = None
    text: str = ""
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A receiver that something waits for; `failing`: the last attempt at it did not succeed."""

    webhook_id: str
    project: str
    failing: bool


def due(session: Session) -> list[Due]:
    """Receivers that something waits for, in no order: none goes before another."""
    waits = (
        exists()
        .where(
            WebhookDelivery.webhook_id == Webhook.id,
            WebhookDelivery.state == PENDING,
            WebhookDelivery.next_attempt_at <= now(),
        )
        .correlate(Webhook)
    )
    query = select(Webhook.id, Webhook.project_id, Webhook.failing_since.is_not(None))
    found = [Due(*row) for row in session.execute(query.where(Webhook.enabled.is_(True), waits))]
    random.shuffle(found)
    return found


def claim(session: Session, owner: str, wanted: Mapping[str, int], lease_seconds: float) -> list[Claimed]:
    """Takes what waits longest for each receiver; for the time of the lease nobody else does.

    An attempt whose worker dies counts as one that failed: what ends every worker is not sent for ever.

    Args:
        session: the open transaction.
        owner: fences what is said of the attempts.
        wanted: most deliveries for each webhook.
        lease_seconds: more than an attempt can take.
    """
    found, moment = [], now()
    for webhook_id, most in wanted.items():
        hook = session.get(Webhook, webhook_id)
        if hook is None or not hook.enabled:
            continue
        query = select(WebhookDelivery).where(
            WebhookDelivery.webhook_id == webhook_id,
            WebhookDelivery.state == PENDING,
            WebhookDelivery.next_attempt_at <= moment,
        )
        query = query.order_by(WebhookDelivery.next_attempt_at).limit(most)
        for row in session.scalars(query.with_for_update(skip_locked=True)):
            if row.owner is not None and not _goes_on(row, moment, lease_seconds):
                continue
            row.owner, row.num_attempts = owner, row.num_attempts + 1
            row.next_attempt_at = moment + timedelta(seconds=lease_seconds)
            keys = tuple(webhooks.signing_keys(hook, moment))
            found.append(Claimed(row.id, row.project_id, hook.id, row.event_id, hook.url, row.body.encode(), keys))
    return found


def _goes_on(row: WebhookDelivery, moment: datetime, lease_seconds: float) -> bool:
    """Whether one whose last attempt was never written down is tried at once: it waits no less than after a failure."""
    if row.num_attempts >= MAX_ATTEMPTS:
        row.status, row.error, row.owner = None, LOST, None
        _end(row, FAILED, moment)
        return False
    wait = delay(row.num_attempts, None) - lease_seconds
    if wait > 0:
        row.owner, row.next_attempt_at = None, moment + timedelta(seconds=wait)
    return wait <= 0


def conclude(session: Session, claimed: Claimed, owner: str, answer: Answer, disable_days: float) -> str | None:
    """Writes down how an attempt ended, and what follows: nothing more, another attempt, or the end of the webhook.

    Returns:
        the delivery's state; None where somebody else has claimed it meanwhile, or it was deleted.
    """
    # The webhook first, as everybody does who takes both.
    hook = session.get(Webhook, claimed.webhook_id, with_for_update={"key_share": True})
    query = select(WebhookDelivery).where(WebhookDelivery.id == claimed.id, WebhookDelivery.owner == owner)
    row = session.scalar(query.with_for_update())
    if hook is None or row is None:
        return None
    moment = now()
    row.status, row.error, row.owner = answer.status, answer.error, None
    session.add(
        WebhookAttempt(
            delivery_id=row.id,
            number=row.num_attempts,
            project_id=row.project_id,
            at=moment,
            seconds=answer.seconds,
            status=answer.status,
            error=answer.error,
            answer=answer.text,
        )
    )
    if answer.status in ANSWERED_WELL:
        hook.failing_since = None
        _end(row, DELIVERED, moment)
        return row.state
    hook.failing_since = hook.failing_since or moment
    if answer.status == GONE:
        _disable(hook, "gone", moment)
    elif moment - hook.failing_since >= timedelta(days=disable_days):
        _disable(hook, "failing", moment)
    if answer.status == GONE or row.num_attempts >= MAX_ATTEMPTS:
        _end(row, FAILED, moment)
    else:
        row.next_attempt_at = moment + timedelta(seconds=delay(row.num_attempts, answer.retry_after_seconds))
    return row.state


def delay(num_attempts: int, retry_after_seconds: float | None) -> float:
    """Seconds until the next attempt: exponential, with jitter, and not before the receiver wants it."""
    seconds = min(FIRST_SECONDS * FACTOR ** (num_attempts - 1), LONGEST_SECONDS) * random.uniform(
        1 - JITTER, 1 + JITTER
    )
    return max(seconds, min(retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))


def expire(session: Session, keep_days: int) -> Sequence[str]:
    """Removes deliveries that are over, with their attempts; their ids."""
    old = delete(WebhookDelivery).where(WebhookDelivery.created_at < now() - timedelta(days=keep_days))
    return session.scalars(old.returning(WebhookDelivery.id)).all()


def _end(row: WebhookDelivery, state: str, moment: datetime) -> None:
    row.state, row.finished_at, row.next_attempt_at = state, moment, None


def _disable(hook: Webhook, reason: str, moment: datetime) -> None:
    hook.enabled, hook.disabled_reason, hook.updated_at = False, reason, moment
