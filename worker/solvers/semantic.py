"""Classifiers for classes that no image was seen of, from vectors that say what these are. Closed forms, no torch.

Shape legend: N images, D features, K known classes (with rows of a classifier, or with images), C wanted classes,
E width of a class's vector.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import unit

Double = NDArray[np.float64]
Float = NDArray[np.floating]

# From "the rows as they are" to "the mean row"; vectors have length 1, so 1000 of them have total energy below 1000.
LAMBDAS = tuple(float(value) for value in np.logspace(-2, 3, 11))
# Directions with less than this of the largest one's energy are rounding.
SMALLEST = 1e-12
# Romera-Paredes and Torr search both of their strengths over these (section 4.1).
STRENGTHS = tuple(float(value) for value in np.logspace(-3, 3, 7))


@dataclass(frozen=True)
class HeadMap:
    """Ridge regression from class vectors to the rows of a classifier.

    Args:
        weight_ED: the map of centred vectors.
        mean_E: mean vector of the known classes.
        strength: lambda, by leaving each known class out.
        cosine: mean cosine between a left-out class's row and its prediction, at that lambda.

    Shape:
        weight_ED: [E, D]
        mean_E: [E]
    """

    weight_ED: Double
    mean_E: Double
    strength: float
    cosine: float

    def rows(self, vectors_CE: Float) -> Double:
        """Rows of length 1 for any classes.

        Shape:
            vectors_CE: [C, E]
            result: [C, D]
        """
        return unit((vectors_CE - self.mean_E) @ self.weight_ED)


def fit_head_map(vectors_KE: Float, rows_KD: Float, strengths: tuple[float, ...] = LAMBDAS) -> HeadMap:
    """Ridge from vectors to rows, both centred; lambda by the exact leave-one-class-out cosine.

    A vector added to all rows changes no probability of the classifier, so what is common to them is left out.

    Shape:
        vectors_KE: [K, E]
        rows_KD: [K, D]
    """
    mean_E = vectors_KE.mean(0, dtype=np.float64)
    known_KE = vectors_KE - mean_E
    rows = rows_KD - rows_KD.mean(0, dtype=np.float64)
    left_KR, values_R, right_RE = np.linalg.svd(known_KE, full_matrices=False)
    seen_RD = left_KR.T @ rows
    wanted_KD = unit(rows)
    best = -1, -np.inf
    for number, strength in enumerate(strengths):
        shrink_R = values_R**2 / (values_R**2 + strength)
        leverage_K = (left_KR**2 * shrink_R).sum(1) + 1 / len(rows)
        # Leaving class k out moves its prediction to (p - h y) / (1 - h); the divisor does not turn the vector.
        left_out_KD = (left_KR * shrink_R) @ seen_RD - leverage_K[:, None] * rows
        cosine = float((unit(left_out_KD) * wanted_KD).sum(1).mean())
        if cosine > best[1]:
            best = number, cosine
    strength = strengths[best[0]]
    weight_ED = right_RE.T @ ((values_R / (values_R**2 + strength))[:, None] * seen_RD)
    return HeadMap(weight_ED, mean_E, strength, best[1])


def conse(probabilities_NK: Float, vectors_KE: Float, top: int) -> Double:
    """Images as convex combinations of the vectors of their likeliest known classes, at length 1.

    ConSE, Norouzi et al., arXiv 1312.5650, equations 3 and 4; T is `top`. Their normaliser Z falls out with the length.

    Shape:
        probabilities_NK: [N, K]
        vectors_KE: [K, E]
        result: [N, E]
    """
    likely_NT = np.argpartition(-probabilities_NK, top - 1, axis=1)[:, :top]
    kept_NK = np.zeros(probabilities_NK.shape)
    np.put_along_axis(kept_NK, likely_NT, np.take_along_axis(probabilities_NK, likely_NT, 1), 1)
    return unit(kept_NK @ vectors_KE)


@dataclass(frozen=True)
class Images:
    """Images of known classes, X = U S B^T, told in the directions B: decomposed once for every strength.

    Shape:
        values_R: [R], squares of S
        basis_DR: [D, R]
        sums_KR: [K, R], sum of each class's features
        total_R: [R], sum of all
    """

    values_R: Double
    basis_DR: Double
    sums_KR: Double
    total_R: Double


def decompose(features_ND: Float, labels_N: NDArray[np.integer], num_classes: int) -> Images:
    """What `eszsl` and `devise` need of the images, from the smaller of their two Gram matrices: O(min(N, D)^2).

    Shape:
        features_ND: [N, D]
        labels_N: [N], 0 to K - 1
    """
    features = features_ND.astype(np.float64)
    if len(features) < features.shape[1]:
        values_R, left_NR = np.linalg.eigh(features @ features.T)
        told = values_R > SMALLEST * values_R.max()
        values_R, left_NR = values_R[told], left_NR[:, told]
        basis_DR = features.T @ (left_NR / np.sqrt(values_R))
    else:
        values_R, basis_DR = np.linalg.eigh(features.T @ features)
        values_R = values_R.clip(0)
    sums_KD = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums_KD, labels_N, features)
    return Images(values_R, basis_DR, sums_KD @ basis_DR, features.sum(0) @ basis_DR)


def eszsl(images: Images, vectors_KE: Float, gamma: float, lam: float) -> Double:
    """B^T V, where V of `x^T V s` is (X X^T + gamma I)^-1 X Y S^T (S S^T + lambda I)^-1; Y is 1 for the label, else -1.

    ESZSL, Romera-Paredes and Torr, ICML 2015, equation 3 (no arXiv number; in surveys, arXiv 1707.00600).

    Shape:
        vectors_KE: [K, E]
        result: [R, E]; `basis_DR @ result` is V
    """
    # (X Y S^T)(S S^T + lambda I)^-1 = (X Y)(S^T S + lambda I)^-1 S^T: as many unknowns as classes, not as words.
    gram_KK = (vectors_KE @ vectors_KE.T).astype(np.float64)
    gram_KK[np.diag_indices_from(gram_KK)] += lam
    pulled_KE = np.linalg.solve(gram_KK, vectors_KE.astype(np.float64))
    return np.asarray((2 * images.sums_KR - images.total_R).T / (images.values_R + gamma)[:, None] @ pulled_KE)


def devise(images: Images, vectors_KE: Float, strength: float) -> Double:
    """B^T M, where M maps features to the vectors of their classes and is scored by the dot product with a vector.

    DeViSE, Frome et al., NIPS 2013, with the squared error of ridge regression in place of its hinge loss.

    Shape:
        vectors_KE: [K, E]
        result: [R, E]; `basis_DR @ result` is M
    """
    return np.asarray(images.sums_KR.T / (images.values_R + strength)[:, None] @ vectors_KE)


def spread(scores_KC: Double) -> float:
    """How far scores of one image lie apart: their standard deviation around each row's own mean."""
    return float((scores_KC - scores_KC.mean(1, keepdims=True)).std())
