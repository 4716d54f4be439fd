"""The eigenbasis of the Gram matrix: one decomposition that every linear solver of a job shares. Torch-free.

In this basis the second-moment matrix of the features is diagonal, so ridge regression is solved for every lambda at
once and logistic regression has a good diagonal preconditioner, while ``0.5 ||W||^2`` keeps its value (a rotation).

Shapes: N items, D features, R = min(N, D) or fewer eigen-directions, B any batch of linear outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# float32 or float64, the same for all arrays of a basis.
Floats = NDArray[np.floating[Any]]

# Rotating all items up front costs one more N x D array and 2 N D^2 operations. Above this many items per feature
# we rotate the (few) parameters at every product instead: at most 1/8 more work, and no second copy of the features.
_MAX_ITEMS_PER_FEATURE_TO_PROJECT = 8
_CHUNK_ROWS = 4096
# Directions that hold less than this share of the total energy are rounding noise of a rank-deficient Gram matrix.
_NULL_ENERGY = {np.dtype(np.float32): 1e-13, np.dtype(np.float64): 1e-15}


@dataclass(frozen=True)
class EigenBasis:
    """Features seen along the eigenvectors of their Gram matrix.

    ``matrix`` is the rotated features when ``projected``, else the features themselves (a view, never a copy when
    they already have the working precision). Rotated features lie direction by direction in memory: products with the
    few rows that a solver has take an eighth less time so.

    Shape:
        matrix: [N, R] or [N, D]; rotation_DR: [D, R], orthonormal columns; energy_R: [R], sums of squares.
    """

    matrix: Floats
    rotation_DR: Floats
    energy_R: NDArray[np.float64]
    projected: bool

    @property
    def num_items(self) -> int:
        """Number of rows of the features."""
        return int(self.matrix.shape[0])

    @property
    def rank(self) -> int:
        """Number of directions kept."""
        return int(self.rotation_DR.shape[1])

    def outputs(self, weight_BR: Floats) -> Floats:
        """Linear outputs of every item for a batch of weight rows.

        Shape:
            weight_BR: [B, R] in the eigenbasis; returns [B, N].
        """
        weights = weight_BR if self.projected else weight_BR @ self.rotation_DR.T
        outputs_BN: Floats = weights @ self.matrix.T
        return outputs_BN

    def gradient(self, residual_BN: Floats) -> Floats:
        """Sum over items of residual times feature, the transpose of ``outputs``.

        Shape:
            residual_BN: [B, N]; returns [B, R] in the eigenbasis.
        """
        # Transposed twice: with few rows, BLAS is faster when the long side is the one that it splits.
        gradient_BR: Floats = (self.matrix.T @ residual_BN.T).T
        return gradient_BR if self.projected else gradient_BR @ self.rotation_DR

    def rows(self, items: slice | NDArray[np.integer]) -> Floats:
        """Rotated features of some items, for sums that need them item by item.

        Shape:
            items: [M], or a range of them; returns [M, R].
        """
        block = self.matrix[items]
        return block if self.projected else block @ self.rotation_DR

    def to_features(self, weight_BR: Floats) -> Floats:
        """Weights in feature space from weights in the eigenbasis.

        Shape:
            weight_BR: [B, R]; returns [B, D].
        """
        weight_BD: Floats = weight_BR @ self.rotation_DR.T
        return weight_BD

    def from_features(self, weight_BD: Floats) -> Floats:
        """Weights in the eigenbasis from weights in feature space (the part outside the span of the items is lost).

        Shape:
            weight_BD: [B, D]; returns [B, R].
        """
        weight_BR: Floats = weight_BD.astype(self.rotation_DR.dtype, copy=False) @ self.rotation_DR
        return weight_BR


def row_chunks(num_rows: int, size: int = _CHUNK_ROWS) -> list[tuple[int, int]]:
    """Half-open row ranges that cover ``num_rows`` in blocks of ``size``."""
    return [(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def eigenbasis(feats_ND: Floats, dtype: type[np.float32] | type[np.float64] = np.float32) -> EigenBasis:
    """Decompose the Gram matrix of standardised features once, on its smaller side.

    The Gram matrix and its eigenvectors are always float64 (small eigenvalues of a float32 Gram matrix are noise,
    and weak regularisation sees them); the products that follow run in ``dtype``.

    Shape:
        feats_ND: [N, D], already centred and scaled.

    Raises:
        ValueError: when the features are not a finite, non-empty matrix.
    """
    if feats_ND.ndim != 2 or 0 in feats_ND.shape:
        raise ValueError(
            f"Expected a non-empty matrix of features [items, dimensions], found shape {feats_ND.shape}; "
            "pass one row of features per item."
        )
    num_items, num_dims = feats_ND.shape
    work_ND: Floats = np.ascontiguousarray(feats_ND, dtype=dtype)
    gram = _gram(work_ND) if num_items > num_dims else _outer(work_ND)
    if not np.isfinite(gram).all():
        raise ValueError(
            "Expected finite features, found NaN or infinity; check the images or the backbone that produced them."
        )
    values, vectors = np.linalg.eigh(gram)
    keep = values > _NULL_ENERGY[np.dtype(dtype)] * max(float(values.sum()), np.finfo(np.float64).tiny)
    keep[-1] = True  # all-zero features still need one direction, so that shapes stay valid
    energy_R, vectors = values[keep][::-1].clip(min=0.0), vectors[:, keep][:, ::-1]
    if num_items > num_dims:
        rotation_DR: Floats = np.ascontiguousarray(vectors, dtype=dtype)
        projected = num_items <= _MAX_ITEMS_PER_FEATURE_TO_PROJECT * num_dims
        return EigenBasis((rotation_DR.T @ work_ND.T).T if projected else work_ND, rotation_DR, energy_R, projected)
    length_R = np.sqrt(np.maximum(energy_R, np.finfo(np.float64).tiny))
    rotation_DR = np.ascontiguousarray((work_ND.T.astype(np.float64) @ vectors) / length_R, dtype=dtype)
    projected_NR: Floats = np.asfortranarray(vectors * length_R, dtype=dtype)
    return EigenBasis(projected_NR, rotation_DR, energy_R, projected=True)


def _gram(work_ND: Floats) -> NDArray[np.float64]:
    """Feature-side Gram matrix [D, D], summed in float64 over blocks of rows so that no float64 copy is held."""
    gram_DD = np.zeros((work_ND.shape[1], work_ND.shape[1]))
    for start, stop in row_chunks(work_ND.shape[0]):
        block = work_ND[start:stop].astype(np.float64, copy=False)
        gram_DD += block.T @ block
    return gram_DD


def _outer(work_ND: Floats) -> NDArray[np.float64]:
    """Item-side Gram matrix [N, N]; N <= D here, so the float64 copy is smaller than D^2."""
    block = work_ND.astype(np.float64, copy=False)
    return block @ block.T
