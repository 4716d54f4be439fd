"""Images that need no file: what graphs are proven on. No torch."""

import numpy as np
from numpy.typing import NDArray

from app.artifact.preprocess import Preprocess

# Sizes of the batches that a graph is proven at.
BATCHES = (1, 3, 16)


def probe_images(preprocess: Preprocess) -> NDArray[np.uint8]:
    """Noise, flat colours, gradients and stripes: what photos and drawings make a network do, without any file.

    Shape:
        result: [16, height, width, 3]
    """
    generator = np.random.default_rng(0)
    height, width = preprocess.height, preprocess.width
    rows, columns = np.mgrid[0:height, 0:width]
    images = generator.integers(0, 256, (max(BATCHES), height, width, 3), dtype=np.uint8)
    images[1] = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=-1)
    images[2] = np.where((columns // 8 % 2)[..., None], (255, 255, 255), (20, 60, 200))
    for index in range(3, max(BATCHES), 2):
        images[index] = generator.integers(0, 256, 3, dtype=np.uint8)
        top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
        images[index, top : top + height // 3, left : left + width // 3] = generator.integers(0, 256, 3, dtype=np.uint8)
    return images
