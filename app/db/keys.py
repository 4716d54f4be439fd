"""Table of API keys: who may call, for which project, and what."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)


class ApiKey(Base):
    """One key. The secret is not kept: `digest` is its sha256, `prefix` what people tell keys apart by.

    A revoked key keeps its row, so that what it was and when it was used last can be read.
    """

    __tablename__ = "api_key"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "digest", unique=True))
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20))
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
