"""Looks at held-out items, and which of two states to keep.

Shape legend: N items, C classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from app.errors import JobFailure
from worker.losses import cross_entropy


@dataclass(frozen=True, slots=True)
class Check:
    """Numbers of one look at held-out items."""

    epoch: int
    accuracy: float
    loss: float

    def better_than(self, best: "Check | None", top: float, num_items: int) -> bool:
        """Whether to keep this state: the lowest loss among those within one standard error of the best accuracy.

        Accuracy alone is a coin toss on a small hold-out: one item of 39 is 2.6 points.

        Args:
            best: what is kept so far.
            top: best accuracy of all checks, this one included.
            num_items: held-out items.
        """
        floor = top - math.sqrt(top * (1 - top) / num_items)
        if best is None or best.accuracy < floor <= self.accuracy:
            return True
        return self.accuracy >= floor and self.loss < best.loss


def check(logits_NC: NDArray[np.float64], labels_N: NDArray[np.int64], epoch: int) -> Check:
    """Accuracy and mean cross-entropy.

    Raises:
        JobFailure: `diverged`, a score that is not finite.
    """
    if not np.isfinite(logits_NC).all():
        raise diverged(epoch, float("nan"))
    loss = float(cross_entropy(torch.from_numpy(logits_NC), torch.from_numpy(labels_N)))
    return Check(epoch, float((logits_NC.argmax(1) == labels_N).mean()), loss)


def diverged(epoch: int, loss: float) -> JobFailure:
    """The failure of a training whose numbers are no numbers any more."""
    return JobFailure(
        "diverged",
        f"expected a finite loss; found {loss} in epoch {epoch}; "
        "use a narrower scope, or look for broken images or labels",
    )
