"""What is asked of a job of kind `predict`: which version, and what its file holds of what the version says."""

from typing import Annotated, Literal

from pydantic import Field

from app.dataset_jobs import DatasetJobIn

KIND: Literal["predict"] = "predict"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class PredictIn(DatasetJobIn):
    """A published version over all images of a stored dataset; what it says of them becomes a file."""

    kind: Literal["predict"]
    model: Name
    version: int | None = Field(
        None, ge=1, lt=2**31, description="By default alias `production` where it is set, else the newest."
    )
    alias: Name | None = Field(None, description="Read when the job is made; it may move afterwards.")
    domain: Name | None = Field(None, description="A domain of the model: its alignment stands before the head.")
    top_k: int = Field(100, ge=1, le=100, description="Most classes in `scores`.")
    features: bool = Field(False, description="Whether each row brings what the head saw.")
