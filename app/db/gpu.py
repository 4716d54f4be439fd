"""Table of time on GPUs: what a project has used of a day."""

from datetime import date

from sqlalchemy import Date, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base

_ID = String(40)


class GpuUse(Base):
    """Seconds that one job was on a GPU on one day (UTC), as its heartbeats showed them.

    A row for each job, so that jobs of one project never wait for each other. `job_id` is no foreign key: what was used
    stays used.
    """

    __tablename__ = "gpu_use"
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    job_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    seconds: Mapped[float]
