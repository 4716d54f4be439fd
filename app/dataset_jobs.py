"""What jobs are asked alike that make a file about many images: of which, in which form, and how urgently."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.bodies import BODY, FROM_LIST

Split = Literal["train", "val", "test"]
Priority = Annotated[
    int,
    Field(ge=-100, le=100, description="Among the project's own waiting jobs the highest goes first, then the oldest."),
]


class FileJobIn(BaseModel):
    """A job whose result is a file with one row for each of many images."""

    model_config = BODY

    splits: Annotated[tuple[Split, ...] | None, FROM_LIST] = Field(
        None, min_length=1, max_length=3, description="Only images of these splits; by default all."
    )
    format: Literal["parquet", "jsonl"] = "parquet"
    priority: Priority = 0

    @model_validator(mode="after")
    def _each_split_once(self) -> Self:
        if self.splits is not None and len(set(self.splits)) < len(self.splits):
            raise ValueError(f"expected each split once; found {', '.join(self.splits)}")
        return self


class DatasetJobIn(FileJobIn):
    """Over images of a stored dataset."""

    dataset: str = Field(min_length=1, max_length=40, description="Ready; labelled or not.")
