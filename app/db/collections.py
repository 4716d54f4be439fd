"""Table of collections: looks at all that lies in storage, and what was removed because no row names it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)


class Collection(Base):
    """One pass over storage; of all projects together.

    Whoever makes it shows at `seen_at` that it goes on; one that fell silent is over without a `report`.
    """

    __tablename__ = "collection"
    __table_args__ = (Index(None, "started_at"),)
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    removes: Mapped[bool]
    started_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    report: Mapped[dict[str, Any] | None]
