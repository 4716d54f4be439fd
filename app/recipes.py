"""Recipes: the frozen, typed configuration of each transfer method that is built.

A method is one class here, one file in `worker/methods`, one row in each table, one section in docs/methods.md.
"""

import math
import types
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator, model_validator

from app.bodies import BODY, FROM_LIST, By, pointers
from app.errors import BadRequest, Unprocessable


class Recipe(BaseModel):
    """What all recipes share: frozen, and an unknown field is an error."""

    model_config = BODY

    paper: ClassVar[str]
    summary: ClassVar[str]
    # When to use it, and what it costs to make and to serve.
    when: ClassVar[str]
    cost: ClassVar[str]
    needs_torch: ClassVar[bool]
    # Whether a job needs a dataset to work on; whoever does not says why it may be absent.
    needs_dataset: ClassVar[bool] = True


class LinearProbe(Recipe):
    """A linear classifier on frozen features."""

    paper = "Kornblith et al., Do Better ImageNet Models Transfer Better?, arXiv 1805.08974"
    summary = (
        "L2 logistic regression (C by cross-validation) or exact leave-one-out ridge, the better one; seconds on a CPU."
    )
    when = (
        "First, on any labelled images of things that photographs show, from about ten of each class; it is what "
        "every other method is compared with."
    )
    cost = (
        "One pass of the images through the backbone, none where features are cached, then seconds. Served on the "
        "shared backbone."
    )
    needs_torch = False

    method: Literal["linear_probe"] = "linear_probe"


class FewShot(Recipe):
    """Nearest centroid, ridge or nearest neighbours on frozen features; chosen without a validation set."""

    paper = "Wang et al., SimpleShot, arXiv 1911.04623; selection by many folds: arXiv 2307.02732"
    summary = (
        "Nearest centroid of centred features of length 1, exact leave-one-out ridge or nearest neighbours, whichever "
        "does best on left-out pictures; for two to a few dozen images per class, seconds on a CPU."
    )
    when = "Two to about twenty images of each class, or classes that will be added later without training."
    cost = (
        "As the probe. Nearest neighbours keep their support images as features; the other two serve one row per class."
    )
    needs_torch = False

    method: Literal["few_shot"] = "few_shot"


class FineTune(Recipe):
    """Linear probe first, then training of the backbone from there (LP-FT)."""

    paper = (
        "Kumar et al., Fine-Tuning can Distort Pretrained Features, arXiv 2202.10054; scopes ssf: Lian et al., "
        "arXiv 2210.08823, lora: Hu et al., arXiv 2106.09685, norm: after BitFit, arXiv 2106.10199"
    )
    summary = (
        "The probe's head, then as much of the backbone as `scope` says: its last stage (on cached activations), "
        "everything, its norms, SSF factors or LoRA, the last two folded into the weights; early stopping."
    )
    when = "The probe is not enough, and the images are unlike photographs or many; hundreds of them at least."
    cost = (
        "Minutes to hours of training; a GPU helps much. Its own backbone is served, as fast as the pretrained one: "
        "nothing is added to it."
    )
    needs_torch = True

    method: Literal["fine_tune"] = "fine_tune"
    scope: Literal["head", "last_stage", "full", "norm", "ssf", "lora"] = Field(
        "last_stage",
        description="What is trained: the head alone, or with it the last stage, the whole network, scale and shift of "
        "its norms, alpha and beta after every layer (ssf; where batch norm follows a convolution, its own do), or "
        "low-rank additions to the linear layers of a transformer (lora). norm, ssf and lora cost nothing when the "
        "model is used.",
    )
    epochs: int = Field(
        20, ge=1, le=1000, description="Passes over the training images; early stopping may end sooner."
    )
    resolution: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="Side of the input in pixels, for scopes full, norm, ssf and lora; the backbone's own by default.",
    )
    max_minutes: float | None = Field(
        None, gt=0, le=10_080, description="Training stops after this time and keeps the best."
    )
    layer_decay: float | None = Field(
        None,
        ge=0.1,
        le=1,
        description="Each stage nearer to the input learns by this factor slower; by default 0.9 where whole blocks of "
        "a transformer are trained, else 1.",
    )
    l2_sp: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Strength of the pull of the trained backbone towards where it began (L2-SP, arXiv 1802.01483); it "
        "hurts where the data is far from the pretraining.",
    )
    soup: bool = Field(
        True, description="Average the best 3 states of the run while the hold-out agrees (arXiv 2203.05482)."
    )
    wise: bool = Field(
        False,
        description="Move back towards the probe on the frozen backbone while the hold-out agrees (arXiv 2109.01903): "
        "more robust to other data than the hold-out's.",
    )
    mixup: float | None = Field(
        None, ge=0, le=1, description="Strength of mixup (arXiv 1710.09412); 0 below 20,000 images and 0.1 from there."
    )
    augment: Literal["default", "trivial", "none"] | None = Field(
        None,
        description="Views to train on: crops and mirrors (default), with one operation of TrivialAugment each "
        "(trivial, arXiv 2103.10158), or none; trivial from 20 images in the median class on. What the label minds is "
        "left out.",
    )
    rank: int = Field(8, ge=1, le=256, description="Of scope lora: columns of each low-rank addition.")

    @model_validator(mode="after")
    def _fields_fit_the_scope(self) -> Self:
        """What the scope has no use for is refused when it was asked for: silence would look like consent."""
        uses = {"rank": self.scope == "lora", "l2_sp": self.scope != "head", "layer_decay": self.scope != "head"}
        unused = [
            name
            for name, is_used in uses.items()
            if not is_used and getattr(self, name) != type(self).model_fields[name].default
        ]
        if unused:
            raise ValueError(
                f"expected fields that scope {self.scope} uses; found {', '.join(unused)}; rank is for lora, l2_sp and "
                "layer_decay are for all but head; leave them out or take another scope"
            )
        return self


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
        description="Time budget; 5 minutes on a CPU and 30 on a GPU by default. Never exceeded by more than 30 s.",
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

    @model_validator(mode="after")
    def _datasets_differ(self) -> Self:
        if self.source is not None and self.source == self.unlabelled:
            raise ValueError(
                f"expected two datasets as source and unlabelled; found {self.source} as both; leave one of them out"
            )
        return self


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


RECIPES: dict[str, type[Recipe]] = {
    "auto": Auto,
    "linear_probe": LinearProbe,
    "few_shot": FewShot,
    "fine_tune": FineTune,
    "adapt": Adapt,
    "zero_shot": ZeroShot,
}

AnyRecipe = Annotated[LinearProbe | FewShot | FineTune | Adapt | ZeroShot | Auto, By("method")]
ADAPTER: TypeAdapter[LinearProbe | FewShot | FineTune | Adapt | ZeroShot | Auto] = TypeAdapter(AnyRecipe)

# Whether a method's tasks are built; anything else is refused by name before a job is made.
TASKS = types.MappingProxyType({name: frozenset({"classification"}) for name in RECIPES})


def parse(document: dict[str, Any]) -> LinearProbe | FewShot | FineTune | Adapt | ZeroShot | Auto:
    """A recipe from its JSON object.

    Raises:
        BadRequest: code unknown_recipe, a method that is not built.
        Unprocessable: a field that is unknown, missing or out of bounds, with a pointer to each.
    """
    method = document.get("method")
    if not isinstance(method, str) or method not in RECIPES:
        raise BadRequest(
            f"expected a method that is built ({', '.join(RECIPES)}); found {method!r}; see GET /api/v1/recipes",
            code="unknown_recipe",
        )
    try:
        return ADAPTER.validate_python(document)
    except ValidationError as error:
        raise Unprocessable(
            f"the recipe {method} has fields that are not valid; see GET /api/v1/recipes",
            errors=pointers(error.errors(), "body", "recipe"),
        ) from error
