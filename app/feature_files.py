"""How a chunk of cached features lies in storage: who writes it, who reads it and who collects it go by this.

A chunk is a pair of objects, `NAME.npy` (a row for each image) and then `NAME.keys` (the images' digests); rows without
digests were cut off.

Shape legend: N images.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

KEYS, ROWS = ".keys", ".npy"
# Of one image: sha256 of its bytes, in hexadecimal.
DIGEST = np.dtype("S64")

Digests = NDArray[np.bytes_]


def packed(keys_N: Digests) -> bytes:
    """What `NAME.keys` has."""
    return keys_N.astype(DIGEST).tobytes()


def name(keys_N: Digests) -> str:
    """By the images: whoever is cut off between the two objects, or does it again, writes the same ones."""
    return hashlib.sha256(packed(keys_N)).hexdigest()[:32]
