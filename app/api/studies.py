"""What the documents of rankings, evaluations and advice share."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.datasets import Failure
from app.db.studies import Study


class StudyOut(BaseModel):
    """A question about data or models, and its answer once `state` is `ready`."""

    id: str
    state: Literal["running", "ready", "failed"]
    request: dict[str, Any] = Field(description="What was asked, defaults filled in.")
    job_id: str | None = Field(description="The job that answers it: progress and log are there.")
    result: dict[str, Any] | None
    failure: Failure | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Study) -> Self:
        """The document of a row."""
        return cls(
            id=row.id,
            state=row.state,
            request=row.request,
            job_id=row.job_id,
            result=row.result,
            failure=Failure.of(row.failure_code, row.failure_message),
            created_at=row.created_at,
            finished_at=row.finished_at,
        )
