"""What every alignment is in the end: `feats @ matrix + offset`, or `feats * alpha + offset` where it is diagonal.

Shape legend: N items, D features in, E features out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows may be float32 (as extracted) or float64; what is fitted is always float64.
Floats = NDArray[np.floating[Any]]
Double = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """A fitted transform of features.

    Shape:
        alpha: [D], one factor per feature, or [D, E], a full matrix applied from the right
        offset: [E], the beta of `alpha * x + beta`
    """

    alpha: Double
    offset: Double

    def __post_init__(self) -> None:
        if self.alpha.ndim not in (1, 2) or self.offset.shape != self.alpha.shape[-1:]:
            raise ValueError(
                f"expected alpha [D] or [D, E] and an offset of its last length; found {self.alpha.shape} and "
                f"{self.offset.shape}"
            )

    @property
    def is_diagonal(self) -> bool:
        """Whether every feature is scaled by itself."""
        return self.alpha.ndim == 1

    @property
    def dim_in(self) -> int:
        """Features taken."""
        return int(self.alpha.shape[0])

    @property
    def dim_out(self) -> int:
        """Features given."""
        return int(self.alpha.shape[-1])

    def apply(self, feats_ND: Floats) -> Floats:
        """The moved features, in the precision of the incoming ones.

        Shape:
            feats_ND: [N, D]; returns [N, E].
        """
        alpha, offset = self.alpha.astype(feats_ND.dtype), self.offset.astype(feats_ND.dtype)
        moved_NE: Floats = (feats_ND * alpha if self.is_diagonal else feats_ND @ alpha) + offset
        return moved_NE

    def then(self, after: "Affine") -> "Affine":
        """This transform followed by another one, as one."""
        if self.dim_out != after.dim_in:
            raise ValueError(f"expected a transform that takes {self.dim_out} features; found one for {after.dim_in}")
        offset = (self.offset * after.alpha if after.is_diagonal else self.offset @ after.alpha) + after.offset
        if self.is_diagonal:
            alpha = self.alpha * after.alpha if after.is_diagonal else self.alpha[:, None] * after.alpha
        else:
            alpha = self.alpha * after.alpha if after.is_diagonal else self.alpha @ after.alpha
        return Affine(alpha, offset)


def between_means(alpha: Double, mean_D: Double, mean_E: Double) -> Affine:
    """The transform with this linear part that takes one mean exactly to the other."""
    moved_E = mean_D * alpha if alpha.ndim == 1 else mean_D @ alpha
    return Affine(alpha, mean_E - moved_E)
