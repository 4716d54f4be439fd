"""The head of a zero-shot transfer that asks the backbone's own classifier first. No torch.

Shape legend: N images, D features, C wanted classes, K classes of the pretraining, E width of a text vector.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from app.artifact import heads
from app.artifact.scores import unit
from app.artifact.spec import HeadKind
from worker.solvers import semantic
from worker.solvers.logits import softmax

Float = NDArray[np.float32]
Double = NDArray[np.float64]


@dataclass(frozen=True)
class TextHead:
    """ConSE (arXiv 1312.5650) on the backbone's own classifier; with `rows`, what rows made from text say is added.

    `classes_CE` and `rows_CD` have the scales inside that make the two comparable.

    Shape:
        known_KD: [K, D], the classifier that the backbone came with; `bias_K` moves the features' mean
        bias_K: [K]
        vectors_KE: [K, E]
        classes_CE: [C, E]
        rows_CD: [C, D], or None
        mean_D: [D], or None
    """

    known_KD: Float
    bias_K: Float
    vectors_KE: Float
    classes_CE: Float
    top: int
    rows_CD: Float | None = None
    mean_D: Float | None = None

    kind: ClassVar[HeadKind] = "text"
    temperature: ClassVar[float] = 1.0

    @property
    def num_params(self) -> int:
        """Numbers that were made for these classes; the classifier came with the backbone."""
        return self.classes_CE.size + (self.rows_CD.size if self.rows_CD is not None else 0)

    def logits(self, features_ND: Float) -> Double:
        """Uncalibrated scores.

        Shape:
            result: [N, C]
        """
        probabilities_NK = softmax((features_ND @ self.known_KD.T + self.bias_K).astype(np.float64))
        by_text = semantic.conse(probabilities_NK, self.vectors_KE, self.top) @ self.classes_CE.T.astype(np.float64)
        if self.rows_CD is None or self.mean_D is None:
            return np.asarray(by_text)
        by_rows = unit(features_ND - self.mean_D) @ self.rows_CD.T.astype(np.float64)
        return np.asarray(by_text + by_rows, np.float64)

    def probabilities(self, features_ND: Float) -> Double:
        """Probabilities; nothing has calibrated them.

        Shape:
            result: [N, C]
        """
        return np.asarray(softmax(self.logits(features_ND)), np.float64)

    def graph(self) -> bytes:
        """ONNX, features -> probabilities."""
        rows = None if self.rows_CD is None or self.mean_D is None else (self.rows_CD, self.mean_D)
        return heads.text(self.known_KD, self.bias_K, self.vectors_KE, self.classes_CE, self.top, rows)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """For weights.safetensors: what was made for these classes; the rest is the backbone's and the encoder's."""
        found = {"classes": self.classes_CE}
        return found if self.rows_CD is None or self.mean_D is None else {
            **found, "rows": self.rows_CD, "mean": self.mean_D,
        }  # fmt: skip
