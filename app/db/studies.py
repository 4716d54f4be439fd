"""Tables of studies: what was asked about data and models, and the answer. A study publishes no model.

Every study is made by a job of its kind, and is immutable once it is `ready`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from app.db.base import Base, now

_ID = String(40)


class Study(Base):
    """What all studies share: `request` is what was asked, as it was checked; `result` what was found."""

    __abstract__ = True
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    request: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(_ID)
    result: Mapped[dict[str, Any] | None]
    failure_code: Mapped[str | None] = mapped_column(String(40))
    failure_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]

    @declared_attr
    def project_id(cls) -> Mapped[str]:  # noqa: N805  (a declared attribute is given the class)
        """The owner."""
        return mapped_column(_ID, ForeignKey("project.id"))

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Index, ...]:  # noqa: N805
        """The order in which lists are read."""
        return (Index(None, "project_id", "id"),)


class Ranking(Study):
    """Backbones in the order of what they promise for a dataset."""

    __tablename__ = "ranking"


class Evaluation(Study):
    """One or two versions of models on a dataset, or a recipe over repeated folds."""

    __tablename__ = "evaluation"


class Advice(Study):
    """What may be wrong with a dataset, and what may be done about it."""

    __tablename__ = "advice"
