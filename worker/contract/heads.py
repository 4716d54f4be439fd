"""Heads as a transfer learns them: the numbers before they are folded, and the ONNX graph that they become. No torch.

Shape legend: N images, D features, C classes, S support images.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from app.artifact import heads, scores
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
        return scores.linear(features_ND, self.weight_CD, self.bias_C, self.mean_D, self.scale_D)

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

    `spread`, where rows are centroids, is the mean squared distance of an image from its class's mean: who adds a class
    makes its bias with it.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D]
    """

    weight_CD: Float
    bias_C: Float
    mean_D: Float
    temperature: float = 1.0
    spread: float | None = None

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
        return scores.cosine(features_ND, self.weight_CD, self.bias_C, self.mean_D)

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
        spread = {} if self.spread is None else {"spread": np.array([self.spread], np.float32)}
        return {"weight": self.weight_CD, "bias": self.bias_C, "mean": self.mean_D, **spread}


@dataclass(frozen=True)
class NeighboursHead:
    """Support images of which the nearest vote, by cosine of the centred features; `app.artifact.scores` says how.

    Shape:
        support_SD: [S, D], centred by the mean and of length 1
        labels_S: [S]
        mean_D: [D]
    """

    support_SD: Float
    labels_S: NDArray[np.int64]
    mean_D: Float
    num_neighbours: int
    num_classes: int
    temperature: float = 1.0

    kind: ClassVar[HeadKind] = "neighbours"

    @property
    def num_params(self) -> int:
        """Numbers that it holds."""
        return self.support_SD.size + self.mean_D.size

    def logits(self, features_ND: Float) -> Double:
        """Uncalibrated scores.

        Shape:
            result: [N, C]
        """
        return scores.neighbours(
            features_ND, self.support_SD, self.labels_S, self.mean_D, self.num_neighbours, self.num_classes
        )

    def probabilities(self, features_ND: Float) -> Double:
        """Probabilities at the head's temperature.

        Shape:
            result: [N, C]
        """
        return np.asarray(softmax(self.logits(features_ND) / self.temperature), np.float64)

    def graph(self) -> bytes:
        """ONNX, features -> probabilities."""
        return heads.neighbours(
            self.support_SD, self.labels_S, self.num_neighbours, self.num_classes, self.temperature, self.mean_D
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For weights.safetensors; `sizes` are the numbers of neighbours and of classes."""
        sizes = np.array([self.num_neighbours, self.num_classes], np.int64)
        return {"support": self.support_SD, "labels": self.labels_S, "mean": self.mean_D, "sizes": sizes}
