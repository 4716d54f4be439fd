"""What frozen features say of a dataset: every picture left out with its copies, and the probe out of whole folds.

All of it in closed form from one eigendecomposition. Torch-free.

Shape legend: N images, D features, C classes, K neighbours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact import scores
from worker.solvers import left_out, ridge
from worker.solvers.folds import stratified_group_folds
from worker.solvers.linear import standardise
from worker.solvers.spectrum import eigenbasis
from worker.training.probing import num_folds

Floats = NDArray[np.floating]
Right = NDArray[np.bool_]

# Neighbours vote by how near they are, so that the number hardly matters.
NEIGHBOURS = 5
# Every decade: between two of them the accuracy moves by less than a standard error.
STRENGTHS = ridge.LAMBDAS[::2]


@dataclass(frozen=True)
class Evidence:
    """Which images are named right, and by whom.

    Args:
        knn_N: by the nearest images of other groups; None where there are too few.
        ridge_N: by ridge on one-hot targets, fitted without the image's group.
        centroid_N: by the nearest class mean, fitted without the image's group.
        folds_N: by ridge fitted without the image's whole fold: what a probe reaches on new images.
        num_folds: of these.
        strength: lambda of ridge.

    Shape:
        all [N]
    """

    knn_N: Right | None
    ridge_N: Right
    centroid_N: Right
    folds_N: Right
    num_folds: int
    strength: float

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
        """Accuracies, for the result."""
        return {
            "knn_loo": None if self.knn_N is None else float(self.knn_N.mean()),
            "ridge_loo": float(self.ridge_N.mean()),
            "centroid_loo": float(self.centroid_N.mean()),
        }


def look(
    feats_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    num_classes: int,
    seed: int,
) -> Evidence:
    """Leaves everything out once.

    Lambda has the lowest squared error on left-out groups, one number chosen of 8 on all images: that flatters ridge by
    less than a standard error, every candidate alike (docs/decisions/0012 has the figures).

    Shape:
        feats_ND: [N, D]; labels_N, groups_N: [N]

    Raises:
        JobFailure: dataset_invalid, a single picture cannot be left out of itself.
    """
    folds_N = stratified_group_folds(labels_N, groups_N, num_folds(groups_N), seed)
    targets_NC = ridge.one_hot(labels_N, num_classes)
    mean_D, scale_D = standardise(feats_ND)
    standard_ND = feats_ND - mean_D.astype(np.float32)
    standard_ND /= scale_D.astype(np.float32)
    basis = eigenbasis(standard_ND)

    def without(left_N: NDArray[np.int64], strength: float) -> NDArray[np.float64]:
        return ridge.leave_groups_out(standard_ND, targets_NC, left_N, strength, basis=basis)

    lowest, strength, ridge_N = np.inf, STRENGTHS[0], np.zeros(len(labels_N), np.bool_)
    for candidate in STRENGTHS:
        said_NC = without(groups_N, candidate)
        error = float(np.square(said_NC - targets_NC).mean())
        if error < lowest:
            lowest, strength, ridge_N = error, candidate, said_NC.argmax(1) == labels_N
    unit_ND = scores.unit(feats_ND - mean_D.astype(np.float32)).astype(np.float32)
    return Evidence(
        knn_N=_neighbours(unit_ND, labels_N, groups_N, num_classes),
        ridge_N=ridge_N,
        centroid_N=left_out.centroid(unit_ND, labels_N, groups_N, num_classes).argmax(1) == labels_N,
        folds_N=without(folds_N, strength).argmax(1) == labels_N,
        num_folds=len(np.unique(folds_N)),
        strength=strength,
    )


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
