"""Webhooks: who is told of what, what was sent, and once more."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from app.api.deps import BARE, After, Context, Limit, Page, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.bodies import BODY, FROM_LIST
from app.db.webhooks import Webhook, WebhookDelivery
from app.outbound import Guard
from app.services import webhooks
from app.webhooks import EVENTS, EventType

router = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=RESPONSES)
LOCATION = "/api/v1/webhooks"
CREATED, ACCEPTED = 201, 202

Url = Annotated[str, Field(min_length=1, max_length=2000, description="Of http or https, at a public address.")]
Events = Annotated[tuple[EventType, ...], FROM_LIST, Field(min_length=1, max_length=len(EVENTS))]
Description = Annotated[str, Field(max_length=200)]


class WebhookIn(BaseModel):
    """A receiver, and what it is to be told of."""

    model_config = BODY

    url: Url
    events: Events = EVENTS
    description: Description = ""
    enabled: bool = True


class WebhookChange(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = BODY

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = Field(None, description="True also takes back what has disabled it.")


class WebhookOut(BaseModel):
    """One webhook."""

    id: str
    url: str
    events: list[str]
    description: str
    enabled: bool
    disabled_reason: Literal["gone", "failing"] | None = Field(
        description="What has disabled it: an answer 410, or nothing but failures for GRAFT_WEBHOOK_DISABLE_DAYS."
    )
    failing_since: datetime | None = Field(description="First failure after the last success.")
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(WebhookOut):
    """One webhook, and its secret, which is shown this once."""

    secret: str = Field(description="`whsec_` and base64: what a library of Standard Webhooks takes.")


class DeliveryOut(BaseModel):
    """One event on its way to one receiver."""

    id: str
    event_id: str = Field(description="The header `webhook-id`: the same at every attempt and in every replay.")
    type: str
    state: Literal["pending", "delivered", "failed"]
    num_attempts: int
    next_attempt_at: datetime | None = Field(
        description="Of one that waits; while it is being sent, when somebody else may send it."
    )
    status: int | None = Field(description="Of the last attempt's answer.")
    error: str | None = Field(description="Why the last attempt had no answer.")
    replay_of: str | None
    created_at: datetime
    finished_at: datetime | None


class AttemptOut(BaseModel):
    """One attempt at a delivery."""

    number: int = Field(description="From 1; one that is missing was made by a worker that died meanwhile.")
    at: datetime = Field(description="When it ended.")
    seconds: float
    status: int | None
    error: str | None
    answer: str = Field(description="The first 2 KB of the answer's body.")


class DeliveryDetail(DeliveryOut):
    """One delivery with all its attempts, and what is sent."""

    payload: dict[str, Any]
    attempts: list[AttemptOut]


def _out(row: Webhook) -> WebhookOut:
    return WebhookOut.model_validate(row, from_attributes=True)


def _delivery(row: WebhookDelivery) -> DeliveryOut:
    return DeliveryOut.model_validate(row, from_attributes=True)


@router.post("", status_code=CREATED, response_model=WebhookWithSecret)
def create_webhook(body: WebhookIn, response: Response, state: Context, session: WriteSession, project: Project) -> Any:
    """Subscribes a receiver to events; docs/webhooks.md says what it gets. The secret is shown this once."""
    wanted = webhooks.NewWebhook(body.url, _unique(body.events), body.description, body.enabled)
    row = webhooks.create(session, project, _guard(state), wanted)
    response.headers["Location"] = f"{LOCATION}/{row.id}"
    return WebhookWithSecret.model_validate(row, from_attributes=True)


@router.get("", response_model=Page[WebhookOut])
def list_webhooks(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Webhooks, newest first."""
    rows, more = webhooks.page(session, project, limit, after)
    return Page(data=[_out(row) for row in rows], has_more=more)


@router.get("/{webhook_id}", response_model=WebhookOut)
def get_webhook(webhook_id: str, session: ReadSession, project: Project) -> Any:
    """One webhook."""
    return _out(webhooks.get(session, project, webhook_id))


@router.patch("/{webhook_id}", response_model=WebhookOut)
def change_webhook(
    webhook_id: str, body: WebhookChange, state: Context, session: WriteSession, project: Project
) -> Any:
    """Changes what is named. What waits goes to the new URL; while it is disabled, events are not kept for it."""
    fields = body.model_dump(exclude_none=True)
    if body.events is not None:
        fields["events"] = list(_unique(body.events))
    return _out(webhooks.change(session, project, _guard(state), webhook_id, fields))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, session: WriteSession, project: Project) -> None:
    """Removes a webhook with its history; what waits is not sent."""
    webhooks.delete(session, project, webhook_id)


@router.post("/{webhook_id}/secret", dependencies=[BARE], response_model=WebhookWithSecret)
def rotate_secret(webhook_id: str, session: WriteSession, project: Project) -> Any:
    """Makes a new secret. For a day each delivery has two signatures, by the new and by the old one."""
    return WebhookWithSecret.model_validate(webhooks.rotate(session, project, webhook_id), from_attributes=True)


@router.post("/{webhook_id}/test", status_code=ACCEPTED, dependencies=[BARE], response_model=DeliveryOut)
def test_webhook(webhook_id: str, response: Response, session: WriteSession, project: Project) -> Any:
    """Sends an event `webhook.test`; how it went is in its delivery, where Location leads."""
    return _accepted(webhooks.test(session, project, webhook_id), response)


@router.get("/{webhook_id}/deliveries", response_model=Page[DeliveryOut])
def list_deliveries(
    webhook_id: str,
    session: ReadSession,
    project: Project,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[Literal["pending", "delivered", "failed"] | None, Query()] = None,
) -> Any:
    """What was or is to be sent, newest first; kept for GRAFT_WEBHOOK_KEEP_DAYS."""
    rows, more = webhooks.deliveries(session, project, webhook_id, limit, after, state)
    return Page(data=[_delivery(row) for row in rows], has_more=more)


@router.get("/{webhook_id}/deliveries/{delivery_id}", response_model=DeliveryDetail)
def get_delivery(webhook_id: str, delivery_id: str, session: ReadSession, project: Project) -> Any:
    """One delivery: what is sent, and how each attempt ended."""
    row = webhooks.delivery(session, project, webhook_id, delivery_id)
    attempts = [
        AttemptOut.model_validate(attempt, from_attributes=True) for attempt in webhooks.attempts(session, row.id)
    ]
    return DeliveryDetail(**_delivery(row).model_dump(), payload=json.loads(row.body), attempts=attempts)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=ACCEPTED,
    dependencies=[BARE],
    response_model=DeliveryOut,
)
def replay_delivery(
    webhook_id: str, delivery_id: str, response: Response, session: WriteSession, project: Project
) -> Any:
    """Sends it once more, with the same `webhook-id` and body, as a new delivery; one that still waits is sent now."""
    return _accepted(webhooks.replay(session, project, webhook_id, delivery_id), response)


def _accepted(row: WebhookDelivery, response: Response) -> DeliveryOut:
    response.headers["Location"] = f"{LOCATION}/{row.webhook_id}/deliveries/{row.id}"
    return _delivery(row)


def _guard(state: Context) -> Guard:
    return Guard(state.settings.webhook_allowed)


def _unique(events: tuple[EventType, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(events))
