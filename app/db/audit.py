"""Table of the audit log: which key has changed what."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)


class AuditEntry(Base):
    """One request that was to change something, and how it ended. `key_id` is no foreign key: the log outlives keys."""

    __tablename__ = "audit_entry"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "at"))
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    key_id: Mapped[str] = mapped_column(_ID)
    method: Mapped[str] = mapped_column(String(10))
    path: Mapped[str] = mapped_column(String(500))
    location: Mapped[str | None] = mapped_column(String(500))
    status: Mapped[int]
    request_id: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(default=now)
