"""The table of what lies in storage and nothing needs."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Waste(Base):
    """A prefix in storage that is to be deleted, from `due_at` on by whoever sweeps.

    It is written in the transaction that gives the objects up, or before they are stored and anybody has said that they
    are wanted; it goes when they are gone, or are wanted. So a process may be killed at any moment, and nothing stays.
    """

    __tablename__ = "waste"
    prefix: Mapped[str] = mapped_column(String(300), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40), ForeignKey("project.id"))
    due_at: Mapped[datetime] = mapped_column(index=True)
    # Of what is under way and may come to be wanted; what was given up had its bytes in a row that is gone.
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
