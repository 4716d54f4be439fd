"""The recipe `auto`: what others would choose."""

from typing import Literal, Self

from pydantic import Field, model_validator

from app.recipes.base import Recipe


class Auto(Recipe):
    """Tries what fits the data and the time, and serves the best."""

    paper = (
        "Procedure of docs/auto.md; LP-FT arXiv 2202.10054, model selection arXiv 2503.18528, one standard error: "
        "Breiman et al., CART, 1984, section 3.4.3"
    )
    summary = (
        "Chooses backbone and method by paired scores on selection data inside a time budget; explains each decision."
    )
    when = "It is not known which method fits, or each choice must be explained."
    cost = "The heads on frozen features, and what else fits the data and `max_minutes` by its forecast."
    needs_torch = False

    method: Literal["auto"] = "auto"
    max_minutes: float | None = Field(
        None,
        gt=0,
        le=10_080,
        description="Time budget; 5 minutes on a CPU and 30 on a GPU by default. Never exceeded by more than 30 s. "
        "Where it does not hold the features of all images, an excerpt of them is learned from and scored.",
    )
    objective: Literal["accuracy", "macro_f1"] = Field("accuracy", description="What is maximised on selection data.")
    source: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Id of a labelled dataset of another domain to learn from too. Where `dataset` has labels of each "
        "of its classes, ways to join the two compete with those that need `dataset` alone; where it has not, "
        "adaptations compete, chosen without a target label.",
    )
    unlabelled: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Id of a dataset of more images like those of `dataset`; labels, if any, are not read. How far it "
        "lies from `dataset` is measured and told; no built method learns from it yet.",
    )
    fallback: bool = Field(
        True,
        description="Serve the baseline instead where a verdict says that the transfer is worse than it, a network "
        "from scratch included: decided on selection data, told by `fallback` of the report. Not with objective "
        "macro_f1, since verdicts are of accuracy.",
    )

    @model_validator(mode="after")
    def _datasets_differ(self) -> Self:
        if self.source is not None and self.source == self.unlabelled:
            raise ValueError(
                f"expected two datasets as source and unlabelled; found {self.source} as both; leave one of them out"
            )
        return self
