"""What is asked of an evaluation: versions on a dataset, or a recipe over repeated folds."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from app.bodies import BODY, By
from app.texts import NAME

VERSIONS: Literal["versions"] = "versions"
FOLDS, REPRODUCE = "folds", "reproduce"
# Fills in what the report of a transfer has waited for; nobody asks for it by itself.
REPORT = "report"
# Recipes that learn from one labelled dataset, so that a fold of it can be left out.
FOLDED = ("linear_probe", "few_shot", "fine_tune", "auto")

Name = Annotated[str, Field(pattern=NAME)]
Number = Annotated[int, Field(ge=1, lt=2**31)]
DatasetId = Annotated[str, Field(min_length=1, max_length=40)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Against(BaseModel):
    """The version that another one is compared with, on the same items."""

    model_config = BODY

    model: Name
    version: Number | None = Field(None, description="By default alias `production` where it is set, else the newest.")
    alias: Name | None = None
    domain: Name | None = Field(None, description="A domain of that model; its items then pass through the alignment.")


class Versions(BaseModel):
    """A published version on a dataset, alone or, where it has labels, against another one."""

    model_config = BODY

    mode: Literal["versions"] = VERSIONS
    dataset: DatasetId = Field(
        description="Any dataset that shares a label with the model, or has none: then its accuracy is estimated."
    )
    model: Name
    version: Number | None = Field(None, description="By default alias `production` where it is set, else the newest.")
    alias: Name | None = None
    against: Against | None = None
    split: Literal["test", "all"] | None = Field(
        None,
        description="By default `test` where a version was made from this dataset or a relative of it (a common base), "
        "else `all`.",
    )
    domain: Name | None = Field(
        None, description="A domain of the model; the first side's items then pass through the alignment bound to it."
    )
    seed: Seed = Field(0, description="Kept with the job; nothing in a comparison of versions is drawn.")


class Folds(BaseModel):
    """A recipe, alone or against another one, over repeated stratified folds of train and validation items."""

    model_config = BODY

    mode: Literal["folds"]
    dataset: DatasetId = Field(description="Labelled; its test split stays out.")
    backbone: str = Field("auto", min_length=1, max_length=200)
    recipe: dict[str, Any] = Field(
        description=f"See GET /api/v1/recipes; one of those that learn from one labelled dataset: {', '.join(FOLDED)}."
    )
    against: dict[str, Any] | None = Field(None, description="Another recipe, on the same folds.")
    folds: int = Field(5, ge=2, le=10)
    repeats: int = Field(3, ge=1, le=20, description="Each with folds of its own; a recipe is trained once for each.")
    seed: Seed = Field(0, description="Of the folds and of the training.")

    @model_validator(mode="after")
    def _two_recipes(self) -> Self:
        if self.against is not None and self.against == self.recipe:
            raise ValueError("expected another recipe to compare with; found the same one; change it or leave it out")
        return self


AnyEvaluation = Annotated[Versions | Folds, By("mode", default=VERSIONS)]
