"""What frozen features say of a dataset: every picture left out with its copies, and the probe out of whole folds.

All of it in closed form from one eigendecomposition. Torch-free.

Shape legend: N images, D features, C classes, K neighbours, R draws of folds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact import scores
from worker.solvers import left_out, ridge
from worker.solvers.linear import standardise
from worker.solvers.spectrum import eigenbasis
from worker.training import probing

Floats = NDArray[np.floating]
Right = NDArray[np.bool_]

# Neighbours vote by how near they are, so that the number hardly matters.
NEIGHBOURS = 5
# Every decade: between two of them the accuracy moves by less than a standard error.
STRENGTHS = ridge.LAMBDAS[::2]
# Draws of the folds: the accuracy of one draw of 238 or 523 images moves by 0.01 (standard deviation), the mean of ten
# by 0.003. Of more images each draw is steadier and dearer, so that there are fewer.
MIN_DRAWS, MAX_DRAWS, DRAWN_IMAGES = 2, 10, 10_000


@dataclass(frozen=True)
class Evidence:
    """Which images are named right, and by whom.

    Args:
        knn_N: by the nearest images of other groups; None where there are too few.
        ridge_N: by ridge on one-hot targets, fitted without the image's group.
        centroid_N: by the nearest class mean, fitted without the image's group.
        folds_RN: by ridge fitted without the image's whole fold, in each draw of folds: what a probe reaches on new
            images.
        can_be_right_N: whether the image's class has another picture. Where it has none, its class is unknown once it
            is left out, and nobody names it right, however good.
        num_folds: of each draw.
        strength: lambda of ridge.

    Shape:
        folds_RN: [R, N]; all others [N]
    """

    knn_N: Right | None
    ridge_N: Right
    centroid_N: Right
    folds_RN: Right
    can_be_right_N: Right
    num_folds: int
    strength: float

    @property
    def is_blind(self) -> bool:
        """Whether no class has another picture when one is left out, so that nothing here says anything."""
        return not self.can_be_right_N.any()

    @property
    def decisive_N(self) -> NDArray[np.float64]:
        """The share of neighbours and ridge that names the image right: what candidates are compared by.

        Shape:
            returns [N].
        """
        both = [self.ridge_N] if self.knn_N is None else [self.ridge_N, self.knn_N]
        return np.asarray(np.mean(both, axis=0), np.float64)

    @property
    def scores(self) -> dict[str, float | None]:
        """Accuracies on images that can be named right, for the result; None where there is none of these."""
        return {
            "knn_loo": None if self.knn_N is None else self._accuracy(self.knn_N),
            "ridge_loo": self._accuracy(self.ridge_N),
            "centroid_loo": self._accuracy(self.centroid_N),
        }

    def _accuracy(self, right_N: Right) -> float | None:
        return None if self.is_blind else float(right_N[self.can_be_right_N].mean())


def can_be_right(labels_N: NDArray[np.integer], groups_N: NDArray[np.integer]) -> Right:
    """Which images have a class with a picture in another group, so that leaving them out leaves their class known.

    Shape:
        labels_N, groups_N, returns: [N]
    """
    _, class_N = np.unique(labels_N, return_inverse=True)
    seen_P2 = np.unique(np.stack([class_N, groups_N], axis=1), axis=0)
    return np.asarray((np.bincount(seen_P2[:, 0]) > 1)[class_N])


def look(
    feats_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    num_classes: int,
    seed: int,
) -> Evidence:
    """Leaves every picture out once, and every fold of each draw.

    Lambda has the lowest squared error on left-out groups, one number chosen of 8 on all images: that flatters ridge by
    less than a standard error, every candidate alike (docs/decisions/0012 has the figures).

    Shape:
        feats_ND: [N, D]; labels_N, groups_N: [N]

    Raises:
        JobFailure: dataset_invalid, a single picture cannot be left out of itself.
    """
    draws = probing.draws(labels_N, groups_N, seed, num_draws(len(labels_N)))
    targets_NC = ridge.one_hot(labels_N, num_classes)
    mean_D, scale_D = standardise(feats_ND)
    standard_ND = feats_ND - mean_D.astype(np.float32)
    standard_ND /= scale_D.astype(np.float32)
    basis = eigenbasis(standard_ND)

    lowest, strength, ridge_N = np.inf, STRENGTHS[0], np.zeros(len(labels_N), np.bool_)
    for candidate in STRENGTHS:
        said_NC = ridge.leave_groups_out(standard_ND, targets_NC, groups_N, candidate, basis=basis)
        error = float(np.square(said_NC - targets_NC).mean())
        if error < lowest:
            lowest, strength, ridge_N = error, candidate, said_NC.argmax(1) == labels_N
    folds_RN = np.zeros((len(draws), len(labels_N)), np.bool_)
    for right_N, folds_N in zip(folds_RN, draws, strict=True):
        said_NC = ridge.leave_folds_out(standard_ND, targets_NC, folds_N, strength, basis=basis)
        right_N[:] = said_NC.argmax(1) == labels_N
    unit_ND = scores.unit(feats_ND - mean_D.astype(np.float32)).astype(np.float32)
    return Evidence(
        knn_N=_neighbours(unit_ND, labels_N, groups_N, num_classes),
        ridge_N=ridge_N,
        centroid_N=left_out.centroid(unit_ND, labels_N, groups_N, num_classes).argmax(1) == labels_N,
        folds_RN=folds_RN,
        can_be_right_N=can_be_right(labels_N, groups_N),
        num_folds=len(np.unique(draws[0])),
        strength=strength,
    )


def num_draws(num_images: int) -> int:
    """How often folds are drawn."""
    return min(MAX_DRAWS, max(MIN_DRAWS, DRAWN_IMAGES // num_images))


def _neighbours(
    unit_ND: Floats, labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], num_classes: int
) -> Right | None:
    """Right or wrong by a vote of the nearest images; None where all others are neighbours."""
    _, size_G = np.unique(groups_N, return_counts=True)
    voters = min(NEIGHBOURS, len(labels_N) - int(size_G.max()) - 1)
    if voters < 1:
        return None
    similarity_NK, labels_NK = left_out.nearest(unit_ND, labels_N, groups_N, voters + 1)
    return np.asarray(scores.votes(similarity_NK, labels_NK, num_classes).argmax(1) == labels_N)
