"""Tables of aliases: names for versions of a model, and what they have meant."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)
_NAME = String(100)


class Alias(Base):
    """A movable name for one version of a model, and what is tried beside that version.

    `canary` answers a `share` of the requests, from 0 to 1; `shadow` is asked too, and only compared.
    """

    __tablename__ = "alias"
    model_id: Mapped[str] = mapped_column(_ID, ForeignKey("model.id", ondelete="CASCADE"), primary_key=True)
    alias: Mapped[str] = mapped_column(_NAME, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    version: Mapped[int]
    canary: Mapped[int | None]
    share: Mapped[float | None]
    shadow: Mapped[int | None]
    updated_at: Mapped[datetime] = mapped_column(default=now)


class AliasChange(Base):
    """Which version an alias pointed at, and since when; None means it was removed."""

    __tablename__ = "alias_change"
    __table_args__ = (Index(None, "model_id", "alias", "id"),)
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    model_id: Mapped[str] = mapped_column(_ID, ForeignKey("model.id", ondelete="CASCADE"), index=True)
    alias: Mapped[str] = mapped_column(_NAME)
    version: Mapped[int | None]
    canary: Mapped[int | None]
    share: Mapped[float | None]
    shadow: Mapped[int | None]
    at: Mapped[datetime] = mapped_column(default=now)
