"""A linear head on features: what every solver here returns and what the bundle's head graph is built from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Linear:
    """Outputs are ``feats_ND @ weight_CD.T + bias_C``, on features standardised as in training.

    Shape:
        weight_CD: [C, D]; bias_C: [C].
    """

    weight_CD: NDArray[np.floating]
    bias_C: NDArray[np.floating]

    def outputs(self, feats_ND: NDArray[np.floating]) -> NDArray[np.floating]:
        """Logits of a classifier, values of a regressor.

        Shape:
            feats_ND: [N, D]; returns [N, C].
        """
        outputs_NC: NDArray[np.floating] = feats_ND @ self.weight_CD.T + self.bias_C
        return outputs_NC


def standardise(feats_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every feature; apply as ``(feats - mean) / scale``.

    Logistic regression on unscaled features is the classic silent failure of probes. A feature that never changes
    (up to rounding) gets scale 1, so that it becomes zero instead of noise blown up.

    Shape:
        feats_ND: [N, D]; returns mean_D, scale_D.

    Raises:
        ValueError: when there is no row.
    """
    if feats_ND.ndim != 2 or feats_ND.shape[0] == 0:
        raise ValueError(f"Expected features [items, dimensions] with at least one item, found shape {feats_ND.shape}.")
    mean_D = feats_ND.mean(axis=0, dtype=np.float64)
    variance_D = feats_ND.var(axis=0, dtype=np.float64)
    rounding_D = (np.finfo(feats_ND.dtype).eps * np.abs(mean_D)) ** 2
    return mean_D, np.sqrt(np.where(variance_D > rounding_D, variance_D, 1.0))
