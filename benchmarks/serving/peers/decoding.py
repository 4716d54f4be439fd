"""How a peer's server prepares an image: as its users write it, or with our decoder given to it (`DECODER=graft`)."""

import io
import os

import numpy as np
from PIL import Image

SIDE, RESIZE = int(os.environ["SIDE"]), int(os.environ["RESIZE"])
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def plain(data: bytes) -> np.ndarray:
    """Open, convert, resize the shorter side, crop the centre: what every tutorial shows."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    factor = RESIZE / min(image.size)
    width, height = (max(SIDE, round(length * factor)) for length in image.size)
    image = image.resize((width, height), FILTERS[os.environ["INTERPOLATION"]])
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), dtype=np.uint8)


def ours(data: bytes) -> np.ndarray:
    """Graft's own decode, resize and crop."""
    from app.artifact import preprocess

    shape = preprocess.Preprocess(SIDE, SIDE, RESIZE, os.environ["INTERPOLATION"], (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return preprocess.load(data, shape)


prepare = ours if os.environ.get("DECODER") == "graft" else plain
