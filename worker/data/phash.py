"""Perceptual hash of a picture: 64 signs of its lowest frequencies, stable under rescaling and recompression.

The classic recipe (32 x 32 grey levels, two-dimensional DCT-II, the 8 x 8 lowest coefficients against their median).
Two pictures within a distance of 4 bits are taken for copies; at 8, unrelated drawings collide.
"""

import math

import numpy as np
from numpy.typing import NDArray

from worker.data.decode_child import SIDE

LOW = 8
# Below this range of grey levels the coefficients are noise: all plain areas would look like copies of each other.
FLAT_LEVELS = 4
NONE = 0

# Rows of the DCT-II matrix; the scale does not matter, since coefficients are only compared.
_DCT = np.cos(math.pi / (2 * SIDE) * np.outer(np.arange(LOW), 2 * np.arange(SIDE) + 1))


def phash(grey: bytes | bytearray) -> NDArray[np.uint64]:
    """64-bit hashes of images, NONE for plain areas, which have nothing to recognise them by.

    Args:
        grey: of N images, one after the other, as `decode_child.grey` makes it.

    Shape:
        result: [N]
    """
    levels_N = np.frombuffer(bytes(grey), dtype=np.uint8).reshape(-1, SIDE, SIDE).astype(np.float64)
    low_N64 = (_DCT @ levels_N @ _DCT.T).reshape(-1, LOW * LOW)
    middle_N2 = np.sort(low_N64)[:, LOW * LOW // 2 - 1 : LOW * LOW // 2 + 1]
    bits_N64 = low_N64 > middle_N2.mean(axis=1, keepdims=True)
    hash_N = np.packbits(bits_N64, axis=1).view(">u8").ravel().astype(np.uint64)
    return np.where(np.ptp(levels_N, axis=(1, 2)) < FLAT_LEVELS, np.uint64(NONE), hash_N)
