"""What is asked of advice on a dataset, what it may find, and what may be asked of it afterwards."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, model_validator

from app.bodies import BODY, FROM_LIST
from app.texts import NAME

Kind = Literal["label_error", "outlier", "near_duplicate", "small_class", "confused_classes", "imbalanced", "drift"]
Action = Literal["remove", "relabel", "look"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Findings of one kind that are listed, and images that they name together; how many more there are is said.
LISTED, NAMED = 1000, 10_000
# Small pictures of what was found: one object under the study's prefix, a zip of `SAMPLE_ID.jpg`; those of the dataset
# that was compared with lie in a folder, since a child has the ids of its base.
THUMBNAILS, AGAINST = "thumbnails.zip", "against/"
NUM_THUMBNAILS = 200

FindingId = Annotated[str, Field(min_length=1, max_length=60)]


class AdviceRequest(BaseModel):
    """A question about a dataset; unknown fields are refused."""

    model_config = BODY

    backbone: str = Field(
        "auto",
        min_length=1,
        max_length=200,
        description="Whose features the images are compared by; `auto` is the best recommended one at hand.",
    )
    against: str | None = Field(
        None,
        min_length=1,
        max_length=40,
        description="Another dataset: does it differ from this one, in its images or in how often its classes are?",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of folds, of sampling and of permutations.")


class ApplyRequest(BaseModel):
    """Which suggestions become a child dataset: findings by id, or all of some kinds."""

    model_config = BODY

    findings: Annotated[tuple[FindingId, ...], FROM_LIST] | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        description="Ids of findings. What was looked at by a person may also change the test split.",
    )
    kinds: Annotated[tuple[Kind, ...], FROM_LIST] | None = Field(
        None,
        min_length=1,
        description="All listed findings of these kinds, but for what would change the test split: a model's opinion "
        "must not correct the answers that models are scored by.",
    )
    name: str | None = Field(None, pattern=NAME, description="Of the child dataset; its base's by default.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.findings is None) == (self.kinds is None):
            raise ValueError("expected either findings or kinds; found both or neither; name one of them")
        return self
