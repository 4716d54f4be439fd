"""How far two domains lie apart in feature space, for the report. Numbers that inform; they choose nothing. Torch-free.

The distances are those of `worker.alignments.distance`, here on features that are standardised by the mean and
deviation of both domains together: before and after an adaptation they may be of different spaces, and must not depend
on units.

Shape legend: N items of one domain, M of the other, D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.alignments import distance
from worker.alignments.frechet import frechet
from worker.alignments.unpaired import sample
from worker.solvers.linear import standardise

SAMPLES = 1000
# Two to fit the classifier of domains and two to ask it about.
MIN_ITEMS = 4

SPACE = (
    f"all dimensions of the features, each standardised by both sets together; {SAMPLES} items of each at most; an "
    "advice's drift measures coral and frechet on a few principal components, so its values are others"
)


@dataclass(frozen=True)
class Distances:
    """Of two domains; around 0 where they cannot be told apart, `proxy_a` at most 2. `space` says of which features.

    `frechet` alone is far above 0 for few items of one domain as well: it compares before with after, not data sets.
    """

    proxy_a: float
    coral: float
    mmd: float
    frechet: float
    space: str = SPACE


def distances(source_ND: NDArray[np.floating], target_MD: NDArray[np.floating], seed: int) -> Distances:
    """All of them, on at most SAMPLES items of each domain; the classifier of domains is asked about every second item.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """
    source, target = (sample(feats, SAMPLES, seed).astype(np.float64) for feats in (source_ND, target_MD))
    mean_D, scale_D = standardise(np.concatenate([source, target]))
    source, target = ((feats - mean_D) / scale_D for feats in (source, target))
    apart, _ = distance.proxy_a(source[::2], target[::2], source[1::2], target[1::2], seed)
    width = distance.bandwidth(source, target, seed)
    return Distances(
        apart,
        distance.coral(source, target),
        distance.mmd(source, target, width, seed),
        frechet(source, target, seed),
    )
