"""Webhooks as their owners see them: who is told, of what, what was sent, and once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import webhooks
from app.db.base import new_id, now
from app.db.models import Project
from app.db.webhooks import Webhook, WebhookAttempt, WebhookDelivery
from app.errors import BadRequest, Conflict, NotFound
from app.outbound import Guard, Refused, entry, place
from app.services import outbox, paging

MAX_WEBHOOKS = 50
OVERLAP = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """What a webhook is made from."""

    url: str
    events: tuple[str, ...]
    description: str
    enabled: bool


def check_url(guard: Guard, url: str) -> None:
    """Refuses a URL that would never be sent to; a name's addresses are looked at whenever it is sent to.

    Raises:
        BadRequest: code webhook_url_refused.
    """
    try:
        wanted = place(url)
    except ValueError as error:
        raise _refused(url, error, "write it as https://HOST/PATH") from error
    try:
        guard.check(wanted)
    except Refused as error:
        own = f'if it is your own receiver, have the operator add "{entry(wanted)}" to GRAFT_WEBHOOK_ALLOWED'
        raise _refused(url, error, own) from error


def _refused(url: str, why: Exception, hint: str) -> BadRequest:
    return BadRequest(
        f"expected a URL of http or https at a public address; found {url[:200]!r}: {why}; {hint}",
        code="webhook_url_refused",
    )


def create(session: Session, project: str, guard: Guard, new: NewWebhook) -> Webhook:
    """Subscribes a receiver; its secret is told this once.

    Raises:
        BadRequest: code webhook_url_refused.
        Conflict: code too_many_webhooks.
    """
    check_url(guard, new.url)
    # One after the other, or two would both be the last one.
    session.get_one(Project, project, with_for_update={"key_share": True})
    number = session.scalar(select(func.count()).select_from(Webhook).where(Webhook.project_id == project)) or 0
    if number >= MAX_WEBHOOKS:
        raise Conflict(
            f"expected at most {MAX_WEBHOOKS} webhooks in a project; found {number}; delete one, or let one receiver "
            "pass events on",
            code="too_many_webhooks",
        )
    row = Webhook(
        id=new_id("wh"),
        project_id=project,
        url=new.url,
        events=list(new.events),
        description=new.description,
        enabled=new.enabled,
        secret=webhooks.new_secret(),
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, project: str, webhook_id: str) -> Webhook:
    """The project's webhook of that id.

    Raises:
        NotFound: there is none.
    """
    row = session.get(Webhook, webhook_id)
    if row is None or row.project_id != project:
        raise NotFound(
            f"expected a webhook of this project; found none with id {webhook_id!r}; see GET /api/v1/webhooks"
        )
    return row


def page(session: Session, project: str, limit: int, after: str | None) -> tuple[Sequence[Webhook], bool]:
    """Webhooks, newest first, below the id `after`; and whether there are more."""
    return paging.newest(session, select(Webhook).where(Webhook.project_id == project), Webhook.id, "wh", limit, after)


def change(session: Session, project: str, guard: Guard, webhook_id: str, fields: dict[str, Any]) -> Webhook:
    """Changes the named fields: url, events, description, enabled. What waits to be sent goes to the new place.

    Raises:
        NotFound: no such webhook.
        BadRequest: code webhook_url_refused.
    """
    row = _locked(session, project, webhook_id)
    if "url" in fields:
        check_url(guard, fields["url"])
    for name, value in fields.items():
        setattr(row, name, value)
    if fields.get("enabled"):
        row.disabled_reason = row.failing_since = None
    row.updated_at = now()
    session.flush()
    return row


def rotate(session: Session, project: str, webhook_id: str) -> Webhook:
    """Gives a webhook a new secret; for a day deliveries are signed with the old one as well.

    Raises:
        NotFound: no such webhook.
    """
    row = _locked(session, project, webhook_id)
    row.previous_secret, row.previous_until = row.secret, now() + OVERLAP
    row.secret, row.updated_at = webhooks.new_secret(), now()
    return row


def delete(session: Session, project: str, webhook_id: str) -> None:
    """Removes a webhook with its history; what waits is not sent.

    Raises:
        NotFound: no such webhook.
    """
    session.delete(_locked(session, project, webhook_id))


def test(session: Session, project: str, webhook_id: str) -> WebhookDelivery:
    """Sends an event that means nothing, whatever the webhook listens to.

    Raises:
        NotFound: no such webhook.
        Conflict: it is disabled.
    """
    hook = _enabled(session, project, webhook_id)
    event_id = new_id("evt")
    body = webhooks.body(event_id, webhooks.TEST, now(), {"webhook": hook.id})
    return _add(session, outbox.delivery(hook, event_id, webhooks.TEST, body))


def deliveries(
    session: Session, project: str, webhook_id: str, limit: int, after: str | None, state: str | None
) -> tuple[Sequence[WebhookDelivery], bool]:
    """What was or is to be sent, newest first, below the id `after`; and whether there are more.

    Raises:
        NotFound: no such webhook.
    """
    get(session, project, webhook_id)
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if state:
        query = query.where(WebhookDelivery.state == state)
    return paging.newest(session, query, WebhookDelivery.id, "whd", limit, after)


def delivery(session: Session, project: str, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """One delivery of a webhook.

    Raises:
        NotFound: no such webhook or delivery.
    """
    get(session, project, webhook_id)
    row = session.get(WebhookDelivery, delivery_id)
    if row is None or row.webhook_id != webhook_id:
        raise NotFound(
            f"expected a delivery of {webhook_id}; found none with id {delivery_id!r}; it may be older than "
            f"GRAFT_WEBHOOK_KEEP_DAYS; see GET /api/v1/webhooks/{webhook_id}/deliveries"
        )
    return row


def attempts(session: Session, delivery_id: str) -> Sequence[WebhookAttempt]:
    """Attempts at a delivery, in order."""
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
    return session.scalars(query.order_by(WebhookAttempt.number)).all()


def replay(session: Session, project: str, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Sends a delivery that has ended once more, with the same `webhook-id` and body; one that waits is sent now.

    Returns:
        the new delivery, or the one that waited.

    Raises:
        NotFound: no such webhook or delivery.
        Conflict: the webhook is disabled.
    """
    hook = _enabled(session, project, webhook_id)
    row = delivery(session, project, webhook_id, delivery_id)
    row = session.get_one(WebhookDelivery, row.id, with_for_update=True, populate_existing=True)
    if row.state != outbox.PENDING:
        return _add(session, outbox.delivery(hook, row.event_id, row.type, row.body, replay_of=row.id))
    moment = now()
    if row.owner is None or row.next_attempt_at is None or row.next_attempt_at <= moment:
        # Of no worker, or of one that has died.
        row.owner, row.next_attempt_at = None, moment
    return row


def signing_keys(row: Webhook, at: datetime) -> list[str]:
    """Secrets that are valid at a moment, the newest first."""
    if row.previous_secret is not None and row.previous_until is not None and at < row.previous_until:
        return [row.secret, row.previous_secret]
    return [row.secret]


def _add(session: Session, row: WebhookDelivery) -> WebhookDelivery:
    session.add(row)
    session.flush()
    return row


def _enabled(session: Session, project: str, webhook_id: str) -> Webhook:
    row = _locked(session, project, webhook_id)
    if not row.enabled:
        raise Conflict(
            f"expected a webhook that is enabled; found {webhook_id} disabled; PATCH it with enabled: true first"
        )
    return row


def _locked(session: Session, project: str, webhook_id: str) -> Webhook:
    """The project's webhook, locked; always before its deliveries, or two transactions could wait in a ring.

    Raises:
        NotFound: there is none.
    """
    get(session, project, webhook_id)
    row = session.get(Webhook, webhook_id, with_for_update={"key_share": True}, populate_existing=True)
    if row is None:
        raise NotFound(f"expected a webhook of this project; found {webhook_id!r} deleted meanwhile")
    return row
