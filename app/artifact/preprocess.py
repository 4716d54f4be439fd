"""The one resize and crop after `decoding.decode`: extraction, training and serving all run this code.

Normalisation is not here: it stands at the front of the exported graph, so an image enters the model as plain uint8.
`VERSION` is part of every feature's key; raise it whenever a pixel, of `decoding.decode` too, can come out different.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.artifact import decoding

VERSION = 1
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
INTERPOLATIONS = tuple(_FILTERS)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image becomes a backbone's input.

    Args:
        height: of the input, pixels.
        width: of the input, pixels.
        resize: length of the shorter side before the centre crop, pixels.
        interpolation: bilinear or bicubic.
        mean: per channel, on a scale of 0 to 1; applied inside the graph.
        std: per channel, on a scale of 0 to 1; applied inside the graph.
    """

    height: int
    width: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    version: int = VERSION

    @property
    def digest(self) -> str:
        """Hex digest over every field, the code's version included."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def apply(image: Image.Image, spec: Preprocess) -> NDArray[np.uint8]:
    """Resizes the shorter side to `spec.resize` and crops the centre, in one resampling.

    Shape:
        result: [height, width, 3]
    """
    width, height = image.size
    scale = min(width, height) / spec.resize
    crop_width, crop_height = min(spec.width * scale, width), min(spec.height * scale, height)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    resized = image.resize((spec.width, spec.height), _FILTERS[spec.interpolation], box=box)
    return np.asarray(resized, dtype=np.uint8)


def load(data: bytes, spec: Preprocess, max_pixels: int = decoding.MAX_PIXELS) -> NDArray[np.uint8]:
    """Bytes -> what the graph takes. The two steps together, as serving and extraction call it.

    Shape:
        result: [height, width, 3]
    """
    return apply(decoding.decode(data, at_least=spec.resize, max_pixels=max_pixels), spec)
