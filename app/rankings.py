"""What is asked of a ranking: which backbones, for which dataset, in how much time."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from app.bodies import BODY, By

AUTO = "auto"
# Each costs a preparation where it was never used, and a look at up to 2,000 images.
MAX_BACKBONES = 16
DEFAULT_MINUTES = 5.0

BackboneName = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[BackboneName], Field(min_length=1, max_length=MAX_BACKBONES)]


def _kind(value: Any) -> str:
    return "names" if isinstance(value, list) else "word"


Backbones = Annotated[
    Annotated[Literal["auto"], Tag("word")] | Annotated[Names, Tag("names")], By(Discriminator(_kind))
]


class RankingIn(BaseModel):
    """Candidate backbones for a labelled dataset, to be put in order."""

    model_config = BODY

    dataset: str = Field(min_length=1, max_length=40, description="Ready, labelled, of task classification.")
    backbones: Backbones = Field(
        "auto",
        description="Names of backbones, each once; `auto` takes the recommended ones whose weights are at hand, best "
        f"first by their accuracy on ImageNet, {MAX_BACKBONES} at most.",
    )
    max_minutes: float = Field(
        DEFAULT_MINUTES,
        gt=0,
        le=1440,
        description="Time budget: a step starts only when its forecast fits. What was skipped is listed. Where it does "
        "not hold stage 1 for all candidates, they are ranked on fewer images.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the images of stage 1, of folds and of resampling.")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = sorted({name for name in self.backbones if self.backbones.count(name) > 1}) if self.names else []
        if twice:
            raise ValueError(f"expected each backbone once; found {', '.join(twice)} twice; name it once")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The backbones that were named; empty for `auto`."""
        return () if self.backbones == AUTO else tuple(self.backbones)
