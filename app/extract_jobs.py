"""What is asked of a job of kind `extract`: under which backbone."""

from typing import Literal

from pydantic import Field

from app.dataset_jobs import DatasetJobIn

KIND: Literal["extract"] = "extract"


class ExtractIn(DatasetJobIn):
    """Features of all images of a stored dataset under a frozen backbone, as a file."""

    kind: Literal["extract"]
    backbone: str = Field(max_length=200, description="One by its name; `auto` needs a task, and here is none.")
