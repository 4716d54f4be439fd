"""Zero-shot by a text encoder that was trained with the backbone: CLIP (arXiv 2103.00020), SigLIP (2303.15343).

The vectors of the classes are the rows of a cosine head; nothing is taken from features before, since both towers were
trained to meet as they are. The temperature is 1 / the model's own `logit_scale`. No torch.

We depart from SigLIP where it answers: it gives each class a sigmoid of `scale * cos + bias` of its own, and we the
softmax of `scale * cos` over the classes, because a model of one label per image needs probabilities that sum to 1. The
bias is the same for all classes, so the order of the answers is SigLIP's own.

Shape legend: N images, C wanted classes, D width of features and of vectors.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import HeadKind
from app.recipes import ZeroShot
from worker.clip_text import TEMPLATES, ClipText
from worker.methods.heads import CosineHead

NO_CENTRE = {"what": "none: features meet the words as they are", "num_images": 0}


Float = NDArray[np.float32]


@dataclass(frozen=True)
class WordsHead:
    """A cosine head whose rows are vectors of words.

    Its kind is `text`, so no class is added to it from images: images are closer to each other than to the words for
    them (the modality gap, arXiv 2203.02053), and a row made from images would take every image.
    """

    cosine: CosineHead

    kind: ClassVar[HeadKind] = "text"

    @property
    def temperature(self) -> float:
        """1 / the model's `logit_scale`."""
        return self.cosine.temperature

    @property
    def num_params(self) -> int:
        """Numbers that were made for these classes."""
        return self.cosine.weight_CD.size

    def logits(self, features_ND: Float) -> NDArray[np.float64]:
        """Cosines.

        Shape:
            result: [N, C]
        """
        return self.cosine.logits(features_ND)

    def probabilities(self, features_ND: Float) -> NDArray[np.float64]:
        """Probabilities at the model's own scale; nothing has calibrated them.

        Shape:
            result: [N, C]
        """
        return self.cosine.probabilities(features_ND)

    def graph(self) -> bytes:
        """ONNX, features -> probabilities."""
        return self.cosine.graph()

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """For weights.safetensors."""
        return {"weight": self.cosine.weight_CD}


def head(recipe: ZeroShot, tower: ClipText) -> WordsHead:
    """The wanted classes as rows, at the scale that the model was trained with."""
    names = [one.name for one in recipe.classes]
    rows_CD = tower.classes(names, [one.description or "" for one in recipe.classes])
    num_classes, width = rows_CD.shape
    bias_C, mean_D = np.zeros(num_classes, np.float32), np.zeros(width, np.float32)
    return WordsHead(CosineHead(rows_CD, bias_C, mean_D, 1 / tower.logit_scale))


def details(tower: ClipText) -> dict[str, Any]:
    """What the report says of it."""
    return {
        "approach": "clip",
        "text_encoder": tower.document(),
        "templates": list(TEMPLATES),
        "logit_scale": tower.logit_scale,
        "centre": NO_CENTRE,
    }
