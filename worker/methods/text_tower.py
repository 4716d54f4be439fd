"""Zero-shot by a text encoder that was trained with the backbone: CLIP (arXiv 2103.00020), SigLIP (2303.15343).

The vectors of the classes are the rows of a cosine head; nothing is taken from features before, since both towers were
trained to meet as they are. The temperature is 1 / the model's own `logit_scale`. No torch.

We depart from SigLIP where it answers: it gives each class a sigmoid of `scale * cos + bias` of its own, and we the
softmax of `scale * cos` over the classes, because a model of one label per image needs probabilities that sum to 1. The
bias is the same for all classes, so the order of the answers is SigLIP's own.

Shape legend: C wanted classes, D width of features and of vectors.
"""

from typing import Any

import numpy as np

from app.recipes import ZeroShot
from worker.backbones.clip_text import TEMPLATES, ClipText
from worker.backbones.text import check_apart
from worker.contract.heads import CosineHead

NO_CENTRE = {"what": "none: features meet the words as they are", "num_images": 0}


def head(recipe: ZeroShot, tower: ClipText) -> CosineHead:
    """The wanted classes as rows, at the scale that the model was trained with."""
    names = [one.name for one in recipe.classes]
    rows_CD = tower.classes(names, [one.description or "" for one in recipe.classes])
    check_apart(names, rows_CD)
    num_classes, width = rows_CD.shape
    return CosineHead(rows_CD, np.zeros(num_classes, np.float32), np.zeros(width, np.float32), 1 / tower.logit_scale)


def details(tower: ClipText) -> dict[str, Any]:
    """What the report says of it."""
    return {
        "approach": "clip",
        "text_encoder": tower.document(),
        "templates": list(TEMPLATES),
        "logit_scale": tower.logit_scale,
        "centre": NO_CENTRE,
    }
