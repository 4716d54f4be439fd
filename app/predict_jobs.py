"""What is asked of a job of kind `predict`: which version, and what its file holds of what the version says."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.dataset_jobs import FileJobIn
from app.texts import NAME

KIND: Literal["predict"] = "predict"

Name = Annotated[str, Field(pattern=NAME)]


class PredictIn(FileJobIn):
    """A published version over all images of a stored dataset or of an upload; what it says of them becomes a file."""

    kind: Literal["predict"]
    dataset: str | None = Field(None, min_length=1, max_length=40, description="Ready; labelled or not.")
    upload_id: str | None = Field(
        None,
        min_length=1,
        max_length=40,
        description="In place of `dataset`: a complete upload of images, as a dataset could be made of. It is used up, "
        "its labels are not read, and no dataset is left.",
    )
    model: Name
    version: int | None = Field(
        None, ge=1, lt=2**31, description="By default alias `production` where it is set, else the newest."
    )
    alias: Name | None = Field(None, description="Read when the job is made; it may move afterwards.")
    domain: Name | None = Field(None, description="A domain of the model: its alignment stands before the head.")
    top_k: int = Field(100, ge=1, le=100, description="Most classes in `scores`.")
    features: bool = Field(False, description="Whether each row brings what the head saw.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (self.upload_id is None):
            found = "neither" if self.dataset is None else "both"
            raise ValueError(f"expected a dataset or an upload_id; found {found}; name one")
        if self.upload_id is not None and self.splits is not None:
            raise ValueError(
                "expected splits with a dataset; found them with an upload, which has none; leave them out"
            )
        return self
