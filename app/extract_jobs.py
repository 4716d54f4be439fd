"""What is asked of a job of kind `extract`: under which backbone, over which images, and what its file holds."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.bodies import BODY, FROM_LIST
from app.predict_jobs import Priority, Split, check_once

KIND: Literal["extract"] = "extract"


class ExtractIn(BaseModel):
    """Features of all images of a stored dataset under a frozen backbone, as a file."""

    model_config = BODY

    kind: Literal["extract"]
    dataset: str = Field(min_length=1, max_length=40, description="Ready; labelled or not.")
    backbone: str = Field(max_length=200, description="One by its name; `auto` needs a task, and here is none.")
    splits: Annotated[tuple[Split, ...] | None, FROM_LIST] = Field(
        None, min_length=1, max_length=3, description="Only images of these splits; by default all."
    )
    format: Literal["parquet", "jsonl"] = "parquet"
    priority: Priority = 0

    @model_validator(mode="after")
    def _each_split_once(self) -> Self:
        check_once(self.splits)
        return self
