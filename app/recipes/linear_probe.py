"""The recipe `linear_probe`."""

from typing import Literal

from app.recipes.base import Recipe


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
