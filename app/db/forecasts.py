"""Table of forecasts: what was expected of a job before it trained, and what it found."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)


class ForecastRow(Base):
    """One finished transfer whose accuracy was foretold."""

    __tablename__ = "forecast"
    __table_args__ = (Index(None, "created_at"),)
    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    expected: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    found: Mapped[float]
    method: Mapped[str] = mapped_column(String(40))
    num_images: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
