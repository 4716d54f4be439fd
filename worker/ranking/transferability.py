"""Scores that promise to rank backbones without fitting a classifier. For information only: they order nothing.

On ten networks and eight sets, picking by them loses 0.3 to 2.7 points of accuracy (LEEP worst), a static list by
ImageNet accuracy 0.8, and neighbours' accuracy on the data itself beats all of them over 42,000 runs (arXiv
2503.18528). Pure functions in float64; memory O(N D + min(N, D)^2).

Shape legend: N images, D features, C classes, Z classes of the pretraining (or components of a mixture), R
eigen-directions.
"""

import numpy as np
from numpy.typing import NDArray

from worker.ranking import mixture
from worker.solvers.ridge import one_hot
from worker.solvers.spectrum import EigenBasis, eigenbasis, row_chunks

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

MAX_ITERATIONS = 200
TOLERANCE = 1e-6
# Bounds of both precisions: where the features explain a class entirely, the noise's would grow for ever.
PRECISION_RANGE = (1e-9, 1e9)


def logme(feats_ND: Floats, labels_N: Ints) -> float:
    """Largest log evidence of a Bayesian linear model of each class against the rest, per image, averaged.

    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", arXiv 2102.11005, algorithm
    1. We iterate all classes at once in the eigenbasis, to a relative change of ``TOLERANCE`` in both precisions, and
    evaluate the evidence as the density of the targets, which is the same number and stays finite where a class is
    explained entirely.

    Shape:
        feats_ND: [N, D]; labels_N: [N], any numbering; classes without an image do not count.

    Raises:
        ValueError: fewer than two images or classes.
    """
    labels_N = _numbered(labels_N)
    num_items = len(labels_N)
    targets_NC = one_hot(labels_N, int(labels_N.max()) + 1)
    basis = eigenbasis(np.asarray(feats_ND, np.float64), np.float64)
    energy_R = np.maximum(basis.energy_R, np.finfo(np.float64).tiny)
    explained_CR = np.square(basis.gradient(np.ascontiguousarray(targets_NC.T))) / energy_R
    # What no weight can explain: the part of the targets outside the span of the features.
    rest_C = np.maximum(targets_NC.sum(0) - explained_CR.sum(1), 0.0)
    alpha_C, beta_C = np.ones(len(rest_C)), np.ones(len(rest_C))
    for _ in range(MAX_ITERATIONS):
        known_CR = beta_C[:, None] * energy_R / (alpha_C[:, None] + beta_C[:, None] * energy_R)
        weight_C = (np.square(known_CR) * explained_CR / energy_R).sum(1)
        residual_C = (np.square(1.0 - known_CR) * explained_CR).sum(1) + rest_C
        gamma_C = known_CR.sum(1)
        before = alpha_C, beta_C
        alpha_C = np.clip(gamma_C / np.maximum(weight_C, np.finfo(np.float64).tiny), *PRECISION_RANGE)
        beta_C = np.clip((num_items - gamma_C) / np.maximum(residual_C, np.finfo(np.float64).tiny), *PRECISION_RANGE)
        if max(np.abs(alpha_C / before[0] - 1).max(), np.abs(beta_C / before[1] - 1).max()) < TOLERANCE:
            break
    variance_CR = 1.0 / beta_C[:, None] + energy_R / alpha_C[:, None]
    inside_C = (np.log(variance_CR) + explained_CR / variance_CR).sum(1)
    outside_C = (num_items - basis.rank) * -np.log(beta_C) + beta_C * rest_C
    evidence_C = -0.5 * (num_items * np.log(2 * np.pi) + inside_C + outside_C)
    return float(evidence_C.mean() / num_items)


def h_score(
    feats_ND: Floats, labels_N: Ints, shrinkage: float | None = None, *, basis: EigenBasis | None = None
) -> float:
    """How much of the features' variance the classes explain, in units of that variance: tr(cov(f)^-1 cov(E[f|y])).

    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019;
    with a covariance shrunk by Ledoit and Wolf as Ibrahim et al. have it, arXiv 2110.06893:
    tr(cov_a(f)^-1 (1 - a) cov(E[f|y])), cov_a = (1 - a) cov + a tr(cov)/D I. With fewer images than features the
    unshrunk score (``shrinkage=0``) is the number of classes less one whatever the features are. ``basis`` is
    ``centred_basis`` of these features when the caller has it.

    Shape:
        feats_ND: [N, D]; labels_N: [N], any numbering.

    Raises:
        ValueError: fewer than two images or classes, or a share outside [0, 1].
    """
    labels_N = _numbered(labels_N)
    centred_ND = feats_ND - feats_ND.mean(axis=0, dtype=np.float64)
    share = ledoit_wolf(centred_ND) if shrinkage is None else shrinkage
    if not 0 <= share <= 1:
        raise ValueError(f"Expected a share between 0 and 1, found {share}.")
    basis = basis or eigenbasis(centred_ND, np.float64)
    num_items, num_dims = centred_ND.shape
    count_C = np.bincount(labels_N)
    sums_CR = basis.gradient(np.ascontiguousarray(one_hot(labels_N, len(count_C)).T))
    between_R = (np.square(sums_CR) / count_C[:, None]).sum(0) / num_items
    variance_R = basis.energy_R / num_items
    shrunk_R = (1 - share) * variance_R + share * variance_R.sum() / num_dims
    return float(((1 - share) * between_R / np.maximum(shrunk_R, np.finfo(np.float64).tiny)).sum())


def ledoit_wolf(centred_ND: Floats) -> float:
    """Share of the covariance to replace by a multiple of the identity (Ledoit and Wolf, JMVA 88(2), 2004, lemma 3.3).

    Shape:
        centred_ND: [N, D], columns of mean 0.
    """
    num_items, num_dims = centred_ND.shape
    length_N = np.empty(num_items)
    for start, stop in row_chunks(num_items):
        length_N[start:stop] = np.square(centred_ND[start:stop].astype(np.float64)).sum(1)
    rows_ND = centred_ND.astype(np.float64)
    smaller = rows_ND @ rows_ND.T if num_items <= num_dims else rows_ND.T @ rows_ND
    squared = float(np.square(smaller / num_items).sum())
    trace = float(length_N.sum() / num_items)
    spread = squared - trace**2 / num_dims
    if spread <= 0:
        return 0.0
    noise = (float(np.square(length_N).sum()) / num_items - squared) / num_items
    return float(min(max(noise, 0.0), spread) / spread)


def nce(source_N: Ints, labels_N: Ints) -> float:
    """Minus the conditional entropy of the label given the class that the source network names: sum P(y,z) log P(y|z).

    Tran et al., "Transferability and Hardness of Supervised Classification Tasks", arXiv 1908.08142.

    Shape:
        source_N, labels_N: [N], any numbering.

    Raises:
        ValueError: no image, or different numbers of them.
    """
    _check(source_N, labels_N)
    _, source_N = np.unique(source_N, return_inverse=True)
    _, labels_N = np.unique(labels_N, return_inverse=True)
    joint_ZC = np.zeros((source_N.max() + 1, labels_N.max() + 1))
    np.add.at(joint_ZC, (source_N, labels_N), 1.0 / len(labels_N))
    given_ZC = joint_ZC / joint_ZC.sum(1, keepdims=True)
    return float((joint_ZC * np.log(np.where(joint_ZC > 0, given_ZC, 1.0))).sum())


def leep(source_NZ: Floats, labels_N: Ints) -> float:
    """Mean log-likelihood of the label under P(y|z) averaged over what the source network says of the image.

    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", arXiv 2002.12462.

    Shape:
        source_NZ: [N, Z], probabilities; labels_N: [N], any numbering.

    Raises:
        ValueError: no image, or different numbers of them.
    """
    _check(source_NZ, labels_N)
    _, labels_N = np.unique(labels_N, return_inverse=True)
    targets_NC = one_hot(labels_N, int(labels_N.max()) + 1)
    joint_ZC = np.zeros((source_NZ.shape[1], targets_NC.shape[1]))
    for start, stop in row_chunks(len(labels_N)):
        joint_ZC += source_NZ[start:stop].T.astype(np.float64) @ targets_NC[start:stop]
    given_ZC = joint_ZC / np.maximum(joint_ZC.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    total = 0.0
    for start, stop in row_chunks(len(labels_N)):
        said_NC = source_NZ[start:stop].astype(np.float64) @ given_ZC
        own_N = said_NC[np.arange(stop - start), labels_N[start:stop]]
        total += float(np.log(np.maximum(own_N, np.finfo(np.float64).tiny)).sum())
    return total / len(labels_N)


def nleep(feats_ND: Floats, labels_N: Ints, seed: int, *, basis: EigenBasis | None = None) -> float:
    """LEEP with the components of a Gaussian mixture of the features in place of the source network's classes.

    Li et al., "Ranking Neural Checkpoints", arXiv 2011.11200: principal components that hold 80 % of the
    variance, five components of the mixture per class. We depart: variances are diagonal in the principal axes
    (components of a few images have no full covariance), there are at most as many components as a quarter of the
    images (but one per class) and 1,000 in all. ``basis`` as in ``h_score``.

    Shape:
        feats_ND: [N, D]; labels_N: [N], any numbering.

    Raises:
        ValueError: fewer than two images or classes.
    """
    labels_N = _numbered(labels_N)
    num_classes = int(labels_N.max()) + 1
    wanted = min(5 * num_classes, max(num_classes, len(labels_N) // 4), 1000)
    reduced_NR = mixture.principal(basis or centred_basis(feats_ND), 0.8)
    return leep(mixture.fit(reduced_NR, min(wanted, len(labels_N)), seed).posterior_NK(reduced_NR), labels_N)


def centred_basis(feats_ND: Floats) -> EigenBasis:
    """Principal axes: the eigenbasis of centred features, in float64.

    Shape:
        feats_ND: [N, D].
    """
    return eigenbasis(feats_ND - feats_ND.mean(axis=0, dtype=np.float64), np.float64)


def _numbered(labels_N: Ints) -> NDArray[np.int64]:
    names, numbered_N = np.unique(labels_N, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"Expected images of at least two classes, found {len(names)} in {len(labels_N)} images.")
    return np.asarray(numbered_N, np.int64)


def _check(source: NDArray[np.generic], labels_N: Ints) -> None:
    if not len(labels_N) or len(source) != len(labels_N):
        raise ValueError(
            f"Expected one label for each answer of the source network, found {len(labels_N)} for {len(source)}."
        )
