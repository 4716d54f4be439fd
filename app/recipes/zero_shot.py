"""The recipe `zero_shot`, and the classes that it is told."""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from app.bodies import BODY, FROM_LIST
from app.recipes.base import Recipe


class ZeroShotClass(BaseModel):
    """A class that is told, not shown."""

    model_config = {**BODY, "allow_inf_nan": False}

    name: str = Field(min_length=1, max_length=200, description="The label; underscores are read as spaces.")
    description: str | None = Field(
        None, max_length=1000, description="What it looks like, in words; the more it says, the better."
    )
    attributes: Annotated[tuple[float, ...] | None, FROM_LIST] = Field(
        None,
        min_length=1,
        max_length=4096,
        description="What it is like, in numbers; then all classes have as many, and some are in the dataset.",
    )

    @property
    def direction(self) -> tuple[float, ...]:
        """The attributes at length 1, which is all that is used of them; nothing but zeros stays so.

        Divided by the largest first: squares of very large numbers overflow, of very small ones vanish.
        """
        assert self.attributes is not None
        largest = max(map(abs, self.attributes)) or 1.0
        scaled = [value / largest for value in self.attributes]
        length = math.hypot(*scaled) or 1.0
        return tuple(value / length for value in scaled)

    @field_validator("name")
    @classmethod
    def _name_says_something(cls, name: str) -> str:
        if not name.replace("_", " ").strip():
            raise ValueError(f"expected a name with a letter in it; found {name!r}")
        if not name.isprintable():
            raise ValueError(f"expected a name without line breaks and other control characters; found {name!r}")
        return name


class ZeroShot(Recipe):
    """Classes by name, description or attributes, without an image of any."""

    paper = (
        "CLIP arXiv 2103.00020; ConSE arXiv 1312.5650; ESZSL, Romera-Paredes and Torr, ICML 2015; DeViSE, Frome et "
        "al., NIPS 2013; calibrated stacking arXiv 1605.04253"
    )
    summary = (
        "Names become vectors, and the backbone's own ImageNet classifier is mapped to them; with a dataset of other, "
        "seen classes, ESZSL and DeViSE compete on class-disjoint folds. A backbone with a text tower of its own "
        "(CLIP, SigLIP) compares words and images directly. No image is needed, and no training."
    )
    when = "No image of some classes, or of none; or a first model that images will replace."
    cost = "Under a second without a dataset, else one pass of its images. Served on the shared backbone."
    needs_torch = False
    needs_dataset = False

    method: Literal["zero_shot"] = "zero_shot"
    classes: Annotated[tuple[ZeroShotClass, ...], FROM_LIST] = Field(
        min_length=2, max_length=1000, description="The classes of the model, each `{name, description?, attributes?}`."
    )
    approach: Literal["auto", "clip", "combined", "head_map", "conse", "eszsl", "devise"] = Field(
        "auto",
        description="How; `auto` is `clip` where the backbone has a text tower, else `combined` without labelled "
        "images, else the best on class-disjoint folds. `clip` needs a backbone with a text tower (`open_clip/...`), "
        "`eszsl` and `devise` a dataset of seen classes, the others a backbone with its ImageNet classifier.",
    )
    centre: Literal["auto", "shipped", "dataset"] = Field(
        "auto",
        description="Whose mean is taken from features: that of the job's dataset, labelled or not (`auto` where there "
        "is one), or the one that was shipped with the backbone. `clip` takes none.",
    )

    def uses_text_tower(self, has_text_tower: bool) -> bool:
        """Whether words meet images in a space that was learned for both: on request, and by itself where it can."""
        return self.approach == "clip" or (
            self.approach == "auto" and has_text_tower and self.classes[0].attributes is None
        )

    @model_validator(mode="after")
    def _classes_differ_and_have_equal_attributes(self) -> Self:
        names = [" ".join(one.name.replace("_", " ").casefold().split()) for one in self.classes]
        twice = sorted({one.name for one, name in zip(self.classes, names, strict=True) if names.count(name) > 1})
        if twice:
            raise ValueError(
                "expected names that differ in more than capitals and blanks; found alike: "
                f"{', '.join(map(repr, twice[:5]))}; name them apart, or join them to one class"
            )
        told = [tuple(round(value, 9) for value in one.direction) for one in self.classes if one.attributes]
        if not all(map(any, told)) or len(set(told)) < len(told):
            raise ValueError(
                "expected attributes that tell the classes apart; found a class with nothing but zeros, or two classes "
                "whose attributes are equal but for their length, which is not used"
            )
        lengths = {len(one.attributes) if one.attributes else 0 for one in self.classes}
        if len(lengths) > 1:
            raise ValueError(
                f"expected attributes of one length for all classes, or none; found lengths {sorted(lengths)}"
            )
        return self
