"""The recipe `fine_tune`: what is trained, and how."""

from typing import Literal, Self

from pydantic import Field, model_validator

from app.recipes.base import Recipe


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
        None,
        gt=0,
        le=10_080,
        description="Time of the whole job, exceeded by 30 s at most on a machine at rest (docs/auto.md). The transfer "
        "has a third of it, and each of the two networks from scratch as much as it took. What does not fit is left "
        "out, and is a row of `decisions`: views, pilots, epochs down to five, the networks from scratch, the "
        "training, and at last images. The probe is what remains.",
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
    fallback: bool = Field(
        False,
        description="Serve the baseline instead where a verdict says that the trained network is worse than it: the "
        "frozen probe, or a network from scratch; told by `fallback` of the report.",
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
