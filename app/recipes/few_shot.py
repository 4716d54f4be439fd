"""The recipe `few_shot`."""

from typing import Literal

from app.recipes.base import Recipe


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
