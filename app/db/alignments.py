"""Tables of feature transforms, and of the domains of models that pass through them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)
_NAME = String(100)


class Alignment(Base):
    """A fitted feature transform, immutable once ready; its files lie in storage under `prefix`.

    It outlives the datasets that it was fitted on, which stand in its recipe alone. `moving_backbone` is that of the
    incoming features where it is not the head's: its graph, and how its images are prepared.
    """

    __tablename__ = "alignment"
    __table_args__ = (UniqueConstraint("project_id", "number"), Index(None, "project_id", "id"))
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    recipe: Mapped[dict[str, Any]]
    backbone: Mapped[str] = mapped_column(String(200))
    job_id: Mapped[str | None] = mapped_column(_ID)
    backbone_digest: Mapped[str | None] = mapped_column(String(64))
    moving_backbone: Mapped[dict[str, Any] | None]
    prefix: Mapped[str | None]
    files: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any] | None]
    failure_code: Mapped[str | None] = mapped_column(String(40))
    failure_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class DomainBinding(Base):
    """Which alignment a model's inputs from one domain pass through."""

    __tablename__ = "domain_binding"
    model_id: Mapped[str] = mapped_column(_ID, ForeignKey("model.id", ondelete="CASCADE"), primary_key=True)
    domain: Mapped[str] = mapped_column(_NAME, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    alignment_id: Mapped[str] = mapped_column(_ID, ForeignKey("alignment.id"), index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class DomainChange(Base):
    """Which alignment a domain had, and since when; None means the binding was removed."""

    __tablename__ = "domain_change"
    __table_args__ = (Index(None, "model_id", "domain", "id"),)
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    model_id: Mapped[str] = mapped_column(_ID, ForeignKey("model.id", ondelete="CASCADE"), index=True)
    domain: Mapped[str] = mapped_column(_NAME)
    # Not a foreign key: history outlives an alignment that was deleted.
    alignment_id: Mapped[str | None] = mapped_column(_ID)
    at: Mapped[datetime] = mapped_column(default=now)
