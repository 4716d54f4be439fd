"""Heads as a transfer learns them: the numbers before they are folded, and the ONNX graph that they become. No torch.

Shape legend: N images, D features, C classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from app.artifact import heads
from app.artifact.spec import HeadKind
from worker.solvers.logits import softmax

Float = NDArray[np.float32]
Double = NDArray[np.float64]


@dataclass(frozen=True)
class LinearHead:
    """A linear map of standardised features.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D]
        scale_D: [D]
    """

    weight_CD: Float
    bias_C: Float
    mean_D: Float
    scale_D: Float
    temperature: float = 1.0

    kind: ClassVar[HeadKind] = "linear"

    @property
    def num_params(self) -> int:
        """Numbers that were learned."""
        return self.weight_CD.size + self.bias_C.size

    def logits(self, features_ND: Float) -> Double:
        """Uncalibrated scores.

        Shape:
            result: [N, C]
        """
        standard = (features_ND - self.mean_D) / self.scale_D
        return (standard @ self.weight_CD.T + self.bias_C).astype(np.float64)

    def probabilities(self, features_ND: Float) -> Double:
        """Calibrated probabilities.

        Shape:
            result: [N, C]
        """
        return np.asarray(softmax(self.logits(features_ND) / self.temperature), np.float64)

    def graph(self) -> bytes:
        """ONNX, features -> probabilities; standardisation and temperature folded in."""
        return heads.linear(self.weight_CD, self.bias_C, self.temperature, self.mean_D, self.scale_D)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """For weights.safetensors."""
        return {"weight": self.weight_CD, "bias": self.bias_C, "mean": self.mean_D, "scale": self.scale_D}


@dataclass(frozen=True)
class CosineHead:
    """Rows that meet the centred feature of length 1: centroids (SimpleShot, arXiv 1911.04623), or rows made from text.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D]
    """

    weight_CD: Float
    bias_C: Float
    mean_D: Float
    temperature: float = 1.0

    kind: ClassVar[HeadKind] = "cosine"

    @property
    def num_params(self) -> int:
        """Numbers that were learned."""
        return self.weight_CD.size + self.bias_C.size + self.mean_D.size

    def logits(self, features_ND: Float) -> Double:
        """Uncalibrated scores.

        Shape:
            result: [N, C]
        """
        return unit(features_ND - self.mean_D) @ self.weight_CD.T.astype(np.float64) + self.bias_C

    def probabilities(self, features_ND: Float) -> Double:
        """Probabilities at the head's temperature.

        Shape:
            result: [N, C]
        """
        return np.asarray(softmax(self.logits(features_ND) / self.temperature), np.float64)

    def graph(self) -> bytes:
        """ONNX, features -> probabilities."""
        return heads.cosine(self.weight_CD, self.bias_C, self.temperature, self.mean_D)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """For weights.safetensors."""
        return {"weight": self.weight_CD, "bias": self.bias_C, "mean": self.mean_D}


def unit(features_ND: Float) -> Double:
    """Features of length 1; a feature of zeros stays one, as ONNX's LpNormalization has it.

    Shape:
        features_ND: [N, D]
        result: [N, D]
    """
    length_N1 = np.linalg.norm(features_ND.astype(np.float64), axis=1, keepdims=True)
    return features_ND / np.where(length_N1 > 0, length_N1, 1.0)
