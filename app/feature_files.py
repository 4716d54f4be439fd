"""How a chunk of cached features lies in storage: who writes it, who reads it and who collects it go by this.

A chunk is a pair of objects, `NAME.npy` (a row for each image) and then `NAME.keys` (the images' digests); rows without
digests were cut off.

Shape legend: N images.
"""

import hashlib
from pathlib import Path
from typing import Any

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


def open_rows(path: Path, num: int) -> NDArray[Any]:
    """What `NAME.npy` has, memory-mapped. Not by `numpy.load`, which takes other files for archives or pickles.

    Args:
        path: of the file.
        num: of the digests beside it.

    Raises:
        ValueError: it is damaged.
    """
    rows: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    if len(rows) != num:
        raise ValueError(f"expected {num} rows, one for each digest; found {len(rows)}")
    return rows


def write_rows(path: Path, rows: NDArray[Any]) -> None:
    """Writes what `NAME.npy` has; `numpy.save` would not say of a disk without room that it has none.

    Raises:
        OSError: with its number.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
        file.write(np.ascontiguousarray(rows).data)
