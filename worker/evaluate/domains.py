"""How far two domains lie apart in feature space. Numbers that inform; they choose nothing. Torch-free.

All three see features that are standardised by the mean and deviation of both domains together, so that they do not
depend on a backbone's units, and at most `SAMPLES` items of each domain.

Shape legend: N items of one domain, M of the other, D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.alignments.unpaired import sample
from worker.solvers import ridge
from worker.solvers.linear import standardise

SAMPLES = 1000


@dataclass(frozen=True)
class Distances:
    """Of two domains; 0 where they cannot be told apart (`proxy_a` may be below by chance, at most 2)."""

    proxy_a: float
    coral: float
    mmd: float


def distances(source_ND: NDArray[np.floating], target_MD: NDArray[np.floating], seed: int) -> Distances:
    """All of them.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """
    source, target = (sample(feats, SAMPLES, seed).astype(np.float64) for feats in (source_ND, target_MD))
    mean_D, scale_D = standardise(np.concatenate([source, target]))
    source, target = ((feats - mean_D) / scale_D for feats in (source, target))
    return Distances(proxy_a(source, target), coral(source, target), mmd(source, target))


def proxy_a(source_ND: NDArray[np.float64], target_MD: NDArray[np.float64]) -> float:
    """Proxy A-distance 2 (1 - 2 e), e the error of a linear classifier that tells the domains apart.

    Ben-David et al., Analysis of Representations for Domain Adaptation, NIPS 2006, section 4; the form of arXiv
    1505.07818, eq. 3. The classifier is ridge, its error that of exact leave-one-out, each domain counting half.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """
    feats = np.concatenate([source_ND, target_MD])
    labels = np.repeat([0, 1], [len(source_ND), len(target_MD)])
    left_out = ridge.leave_one_out(feats, ridge.one_hot(labels, 2))
    wrong = left_out.predictions_LNC[left_out.best_index].argmax(1) != labels
    error = 0.5 * (wrong[labels == 0].mean() + wrong[labels == 1].mean())
    return float(2.0 * (1.0 - 2.0 * error))


def coral(source_ND: NDArray[np.float64], target_MD: NDArray[np.float64]) -> float:
    """Squared Frobenius distance of the covariances over 4 D^2 (arXiv 1607.01719, eq. 1).

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """
    difference = np.cov(source_ND, rowvar=False) - np.cov(target_MD, rowvar=False)
    return float(np.square(difference).sum() / (4.0 * source_ND.shape[1] ** 2))


def mmd(source_ND: NDArray[np.float64], target_MD: NDArray[np.float64]) -> float:
    """Squared maximum mean discrepancy with a Gaussian kernel, the biased estimate (Gretton et al., JMLR 2012, eq. 5).

    The kernel's squared width is the median of all squared distances.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """
    feats = np.concatenate([source_ND, target_MD])
    square = np.square(feats).sum(1)
    squared = np.maximum(square[:, None] + square - 2.0 * feats @ feats.T, 0.0)
    kernel = np.exp(-squared / np.median(squared[np.triu_indices(len(feats), 1)]))
    num = len(source_ND)
    return float(kernel[:num, :num].mean() + kernel[num:, num:].mean() - 2.0 * kernel[:num, num:].mean())
