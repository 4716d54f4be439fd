"""The recipe `adapt`: from a labelled source to an unlabelled target."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.bodies import FROM_LIST
from app.recipes.base import Recipe


class Adapt(Recipe):
    """A labelled source serves an unlabelled target: domain adaptation."""

    paper = (
        "CORAL arXiv 1511.05547, AdaBN arXiv 1603.04779, MCC arXiv 1912.03699, DANN arXiv 1505.07818, MDD arXiv "
        "1904.05801, chosen as in arXiv 2208.07360; target labels: arXiv 2304.00792"
    )
    summary = (
        "The probe of a labelled source, and ways to fit it to a target without labels, on the frozen backbone's "
        "features (mcc, dann and mdd train a head of one hidden layer there) or under batch norm's statistics of each "
        "domain; a validator that never sees target labels chooses, and the source's probe is served when nothing is "
        "better."
    )
    when = "Labels are there for one kind of images, and the model must work on another kind that has none, or few."
    cost = (
        "Features of both domains, then about five seconds per closed form and fifteen per trained candidate; batch "
        "norm reads all images with torch. Batch norm alone serves a backbone of its own."
    )
    needs_torch = True

    method: Literal["adapt"] = "adapt"
    source: str = Field(
        min_length=1, max_length=100, description="Id of the labelled dataset to learn from; `dataset` is the target."
    )
    target_labels: bool = Field(
        False,
        description="Learn from the target's labels too (at least one per class); otherwise they only score.",
    )
    candidates: Annotated[
        tuple[Literal["z_score", "coral", "mcc", "dann", "dann_mcc", "mdd", "batch_norm"], ...] | None, FROM_LIST
    ] = Field(
        None, min_length=1, max_length=7, description="Adaptations to try beside the source alone; by default all."
    )
    max_minutes: float = Field(
        5.0, gt=0, le=10_080, description="A candidate starts only when its forecast fits this time."
    )

    @model_validator(mode="after")
    def _candidates_are_for_an_unlabelled_target(self) -> Self:
        if self.target_labels and self.candidates is not None:
            raise ValueError(
                "expected no candidates with target_labels: source and labels of the target are then joined in ways "
                "of their own; found both; leave one of them out"
            )
        if self.candidates and len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"expected each candidate once; found {', '.join(self.candidates)}")
        return self
