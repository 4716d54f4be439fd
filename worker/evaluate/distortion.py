"""How far training moved a backbone's features from those that it came with. Torch-free.

Full fine-tuning distorts pretrained features, which is what it loses on other data (Kumar et al., arXiv 2202.10054,
section 3.3). Two numbers: the mean relative change, which sees every change, and linear CKA (Kornblith et al., arXiv
1905.00414, equation 4), which is 1 where features were only rotated, shifted or scaled as a whole: a head can undo
that.

We depart from the paper in the estimator of HSIC: the unbiased one (Song et al., JMLR 13, 2012, equation 5). With fewer
images than features the plain one is far above 0 for features that have nothing in common.

Shape legend: N items, D and E features.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Double = NDArray[np.float64]

# Of more, a sample: the Gram matrices are [N, N].
MAX_ITEMS = 1000
# The unbiased estimator divides by N (N - 3); with few items it says nothing.
MIN_ITEMS = 30


def relative_change(before_ND: Floats, after_ND: Floats) -> float:
    """Mean of |f_after - f_before| / |f_before| over the items.

    Shape:
        both [N, D].
    """
    before_ND = before_ND.astype(np.float64)
    moved_N = np.linalg.norm(after_ND - before_ND, axis=1)
    return float((moved_N / np.maximum(np.linalg.norm(before_ND, axis=1), 1e-12)).mean())


def linear_cka(first_ND: Floats, second_NE: Floats) -> float:
    """Centred kernel alignment of two feature sets over the same items: 1 alike, around 0 (also below) unrelated.

    Shape:
        first_ND: [N, D]; second_NE: [N, E].

    Raises:
        ValueError: fewer than four items, or not the same number.
    """
    if len(first_ND) != len(second_NE) or len(first_ND) < 4:
        raise ValueError(f"expected the same items twice, at least 4; found {len(first_ND)} and {len(second_NE)}")
    first_NN, second_NN = _gram(first_ND), _gram(second_NE)
    scale = _hsic(first_NN, first_NN) * _hsic(second_NN, second_NN)
    return float(np.clip(_hsic(first_NN, second_NN) / np.sqrt(scale), -1, 1)) if scale > 0 else 0.0


def _gram(feats_ND: Floats) -> Double:
    """Inner products of centred features, without their diagonal; centring keeps large means out of the rounding."""
    feats_ND = feats_ND.astype(np.float64)
    feats_ND -= feats_ND.mean(0)
    found: Double = feats_ND @ feats_ND.T
    np.fill_diagonal(found, 0.0)
    return found


def _hsic(first_NN: Double, second_NN: Double) -> float:
    """Equation 5 of Song et al., of Gram matrices without diagonals."""
    n = len(first_NN)
    trace = float(np.vdot(first_NN, second_NN))
    sums = first_NN.sum() * second_NN.sum() / ((n - 1) * (n - 2))
    rows = 2 * float(first_NN.sum(0) @ second_NN.sum(0)) / (n - 2)
    return float((trace + sums - rows) / (n * (n - 3)))
