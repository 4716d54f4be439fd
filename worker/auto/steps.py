"""What `auto` tries, and when: a table to read. k is the number of images in the median class, N that of all.

Bounds and order follow the evidence in docs/auto.md; "the better" among equal tiers is decided by the data alone.
"""

from dataclasses import dataclass

import numpy as np

from app.recipes import FewShot, FineTune, LinearProbe
from worker.contract.task import Task

# From here on a network is trained as a whole, where there is a GPU; smaller scopes have nothing left to protect.
MANY_IMAGES = 20_000
EPOCHS = 20
# Which fold an item falls into moves the accuracy of a head on 400 items by a point, about what heads differ by. With
# more items it moves less, and refitting takes its time.
NUM_DRAWS, MAX_DRAWN_ITEMS = 3, 2000


def num_draws(num_images: int) -> int:
    """How often the folds are drawn in which heads are compared."""
    return NUM_DRAWS if num_images <= MAX_DRAWN_ITEMS else 1


@dataclass(frozen=True)
class Facts:
    """What decides which steps are tried."""

    num_images: int
    median_images: float
    num_classes: int
    device: str

    def __str__(self) -> str:
        plural = "" if round(self.median_images) == 1 else "s"
        return (
            f"{self.median_images:.0f} image{plural} in the median class, {self.num_images} in all, on a "
            f"{'GPU' if self.device == 'cuda' else 'CPU'}"
        )


@dataclass(frozen=True)
class Step:
    """One way to solve the task.

    Args:
        name: for people.
        recipe: that carries it out.
        tier: what it costs to make and to serve; of those within one standard error the lowest is taken, and of equal
            ones the better.
        from_median: images in the median class from which it is tried, or
        from_images: images in all.
        below_images: in all, from which it is not tried any more.
        only_on_gpu: whether it would take too long elsewhere.
        why: these bounds.
    """

    name: str
    recipe: FewShot | LinearProbe | FineTune
    tier: int
    why: str
    from_median: int = 0
    from_images: int | None = None
    below_images: int | None = None
    only_on_gpu: bool = False

    def refusal(self, facts: Facts) -> str:
        """Why it is not tried on this data; empty where it is."""
        if self.below_images is not None and facts.num_images >= self.below_images and facts.device == "cuda":
            return f"from {self.below_images} images on everything is trained at once; found {facts}"
        enough = facts.median_images >= self.from_median or (
            self.from_images is not None and facts.num_images >= self.from_images
        )
        if not enough:
            more = f" or {self.from_images} in all" if self.from_images is not None else ""
            return f"needs {self.from_median} images in the median class{more}, {self.why}; found {facts}"
        if self.only_on_gpu and facts.device != "cuda":
            return f"needs a GPU, {self.why}; found {facts}"
        return ""


def _tune(scope: str, tier: int, why: str, **bounds: int | bool) -> Step:
    recipe = FineTune.model_validate({"scope": scope, "epochs": EPOCHS})
    return Step(f"fine_tune {scope}", recipe, tier, why, **bounds)  # type: ignore[arg-type]


# On cached features: seconds each, whatever k is. Equal to serve, so that the data alone decides between them.
HEADS: tuple[Step, ...] = (
    Step("linear_probe", LinearProbe(), 1, "it is what everything is compared with"),
    Step("few_shot", FewShot(), 1, "with few images it is the better one, and it costs nothing more"),
)
# With the network: cheapest first.
TUNED: tuple[Step, ...] = (
    _tune(
        "norm", 2, "since norms can follow so few, and every step passes the whole network",
        from_median=5, below_images=MANY_IMAGES, only_on_gpu=True,
    ),
    _tune(
        "ssf", 2, "since factors can follow so few (arXiv 2210.08823), and every step passes the whole network",
        from_median=5, below_images=MANY_IMAGES, only_on_gpu=True,
    ),
    _tune(
        "last_stage", 3, "since a stage that follows fewer loses more than it gains (arXiv 2202.10054)",
        from_median=20, from_images=1000, below_images=MANY_IMAGES,
    ),
    _tune(
        "full", 4, "since every weight is trained, and every step passes the whole network",
        from_median=20, from_images=1000, only_on_gpu=True,
    ),
)  # fmt: skip


def facts(task: Task) -> Facts:
    """Of the images that may be learned from."""
    counts = np.bincount(task.labels_N[task.pool], minlength=task.num_classes)
    return Facts(len(task.pool), float(np.median(counts)), task.num_classes, task.context.device)


def heads(known: Facts) -> tuple[Step, ...]:
    """Below five images per class the few-shot classifiers come first: a stop or a short time keeps the first."""
    return HEADS if known.median_images >= 5 else HEADS[::-1]
