"""Perceptual hash of a picture: 64 signs of its lowest frequencies, stable under rescaling and recompression.

The classic recipe (32 x 32 grey levels, two-dimensional DCT-II, the 8 x 8 lowest coefficients against their median).
Two pictures within a distance of 4 bits are taken for copies; at 8, unrelated drawings collide.
"""

import math

import numpy as np
from PIL import Image

SIDE = 32
LOW = 8
# Below this range of grey levels the coefficients are noise: all plain areas would look like copies of each other.
FLAT_LEVELS = 4
NONE = 0

# Rows of the DCT-II matrix; the scale does not matter, since coefficients are only compared.
_DCT = np.cos(math.pi / (2 * SIDE) * np.outer(np.arange(LOW), 2 * np.arange(SIDE) + 1))


def phash(image: Image.Image) -> int:
    """64-bit hash of an upright RGB image, or NONE for a plain area, which has nothing to recognise it by."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    levels = np.asarray(small, dtype=np.float64)
    if np.ptp(levels) < FLAT_LEVELS:
        return NONE
    low = (_DCT @ levels @ _DCT.T).ravel()
    ordered = np.sort(low)
    # The median of 64 numbers lies between the middle two; numpy's own takes longer than all the rest.
    is_high = low > (ordered[LOW * LOW // 2 - 1] + ordered[LOW * LOW // 2]) / 2
    return int.from_bytes(np.packbits(is_high).tobytes())
