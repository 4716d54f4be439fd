"""Tables of prediction logs: which models keep what they are asked."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, now

_ID = String(40)


class PredictionLog(Base):
    """A model whose predictions are kept: a `share` of the requests, for `keep_days`, with or without the images."""

    __tablename__ = "prediction_log"
    model_id: Mapped[str] = mapped_column(_ID, ForeignKey("model.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    share: Mapped[float]
    keep_days: Mapped[int]
    images: Mapped[bool]
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    updated_at: Mapped[datetime] = mapped_column(default=now)
