"""The head that adversarial adaptation trains: one hidden layer. No torch.

Shape legend: N images, D features, H hidden units, C classes.
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
class NetworkHead:
    """One hidden layer of rectified units on standardised features: what adversarial adaptation trains.

    Shape:
        hidden_HD: [H, D]
        hidden_H: [H]
        weight_CH: [C, H]
        bias_C: [C]
        mean_D: [D]
        scale_D: [D]
    """

    hidden_HD: Float
    hidden_H: Float
    weight_CH: Float
    bias_C: Float
    mean_D: Float
    scale_D: Float
    temperature: float = 1.0

    kind: ClassVar[HeadKind] = "network"

    @property
    def num_params(self) -> int:
        """Numbers that were learned."""
        return self.hidden_HD.size + self.hidden_H.size + self.weight_CH.size + self.bias_C.size

    def logits(self, features_ND: Float) -> Double:
        """Uncalibrated scores.

        Shape:
            result: [N, C]
        """
        return (self.hidden(features_ND) @ self.weight_CH.T + self.bias_C).astype(np.float64)

    def hidden(self, features_ND: Float) -> Float:
        """What the hidden layer makes of the features.

        Shape:
            result: [N, H]
        """
        standard = (features_ND - self.mean_D) / self.scale_D
        return np.asarray(np.maximum(standard @ self.hidden_HD.T + self.hidden_H, 0.0), np.float32)

    def probabilities(self, features_ND: Float) -> Double:
        """Probabilities at the head's temperature.

        Shape:
            result: [N, C]
        """
        return np.asarray(softmax(self.logits(features_ND) / self.temperature), np.float64)

    def graph(self) -> bytes:
        """ONNX, features -> probabilities; standardisation and temperature folded in."""
        return heads.network(
            self.hidden_HD,
            self.hidden_H,
            self.weight_CH,
            self.bias_C,
            self.temperature,
            self.mean_D,
            self.scale_D,
        )

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """For weights.safetensors."""
        return {
            "hidden.weight": self.hidden_HD,
            "hidden.bias": self.hidden_H,
            "weight": self.weight_CH,
            "bias": self.bias_C,
            "mean": self.mean_D,
            "scale": self.scale_D,
        }
