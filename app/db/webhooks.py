"""Tables of webhooks: who is told of what, and what was sent."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)
_PENDING = text("state = 'pending'")


class Webhook(Base):
    """A receiver. `secret` must be readable, since it signs; until `previous_until` the one before signs too.

    `failing_since` is the first failure after the last success; `disabled_reason` is `gone` or `failing` where Graft
    itself has given up.
    """

    __tablename__ = "webhook"
    __table_args__ = (Index(None, "project_id", "id"),)
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    url: Mapped[str]
    events: Mapped[list[Any]]
    description: Mapped[str]
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None] = mapped_column(String(20))
    failing_since: Mapped[datetime | None]
    secret: Mapped[str] = mapped_column(String(100))
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class WebhookDelivery(Base):
    """One event on its way to one receiver; written in the transaction of what it tells.

    `event_id` is what receivers see as `webhook-id`: the same for all of them, at every attempt and in every replay.
    While somebody sends it, `owner` says who, and `next_attempt_at` until when nobody else does.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index(None, "webhook_id", "id"),
        Index(None, "created_at"),
        Index(
            "ix_webhook_delivery_due",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=_PENDING,
            sqlite_where=_PENDING,
        ),
    )
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    webhook_id: Mapped[str] = mapped_column(_ID, ForeignKey("webhook.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(_ID)
    type: Mapped[str] = mapped_column(String(40))
    body: Mapped[str]
    state: Mapped[str] = mapped_column(String(20))
    num_attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    owner: Mapped[str | None] = mapped_column(String(100))
    # Not a foreign key: a replay outlives what it repeats.
    replay_of: Mapped[str | None] = mapped_column(_ID)
    status: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class WebhookAttempt(Base):
    """One attempt at a delivery. A number that is missing is that of a worker that died meanwhile."""

    __tablename__ = "webhook_attempt"
    delivery_id: Mapped[str] = mapped_column(
        _ID, ForeignKey("webhook_delivery.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    at: Mapped[datetime] = mapped_column(default=now)
    seconds: Mapped[float]
    status: Mapped[int | None]
    error: Mapped[str | None]
    answer: Mapped[str]
