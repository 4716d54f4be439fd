"""What is asked of a job of kind `predict`: which version, over which images, and what its file holds."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.bodies import BODY, FROM_LIST

KIND: Literal["predict"] = "predict"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Split = Literal["train", "val", "test"]
Priority = Annotated[
    int,
    Field(ge=-100, le=100, description="Among the project's own waiting jobs the highest goes first, then the oldest."),
]


def check_once(splits: tuple[Split, ...] | None) -> None:
    """Passes where no split is named twice.

    Raises:
        ValueError: one is.
    """
    if splits is not None and len(set(splits)) < len(splits):
        raise ValueError(f"expected each split once; found {', '.join(splits)}")


class PredictIn(BaseModel):
    """A published version over all images of a stored dataset; what it says of them becomes a file."""

    model_config = BODY

    kind: Literal["predict"]
    dataset: str = Field(min_length=1, max_length=40, description="Ready; labelled or not.")
    model: Name
    version: int | None = Field(
        None, ge=1, lt=2**31, description="By default alias `production` where it is set, else the newest."
    )
    alias: Name | None = Field(None, description="Read when the job is made; it may move afterwards.")
    domain: Name | None = Field(None, description="A domain of the model: its alignment stands before the head.")
    splits: Annotated[tuple[Split, ...] | None, FROM_LIST] = Field(
        None, min_length=1, max_length=3, description="Only images of these splits; by default all."
    )
    top_k: int = Field(100, ge=1, le=100, description="Most classes in `scores`.")
    features: bool = Field(False, description="Whether each row brings what the head saw.")
    format: Literal["parquet", "jsonl"] = "parquet"
    priority: Priority = 0

    @model_validator(mode="after")
    def _each_split_once(self) -> Self:
        check_once(self.splits)
        return self
