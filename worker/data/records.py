"""What is known of each image while it is ingested, in columns: 150 bytes per image, not a kilobyte in dicts."""

from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from worker.data.phash import phash
from worker.data.spool import Stored

# Images that are hashed together.
AT_ONCE = 256
PENDING, GOOD, BAD = 0, 1, 2


class Records:
    """Growing columns, one row per image. N is the number of rows.

    The arrays that it gives are views: none can be held while another image is added.
    """

    def __init__(self) -> None:
        self._paths = bytearray()
        self._path_ends = array("Q", [0])
        self._sha256 = bytearray()
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._widths = array("I")
        self._heights = array("I")
        self._phashes = array("Q")
        self._states = array("b")
        self._grey = bytearray()
        self._grey_rows: list[int] = []

    def __len__(self) -> int:
        return len(self._states)

    def add(self, path: str, stored: Stored) -> int:
        """Notes an image that waits to be checked; returns its row."""
        self._paths += path.encode()
        self._path_ends.append(len(self._paths))
        self._sha256 += stored.sha256
        self._offsets.append(stored.offset)
        self._lengths.append(stored.length)
        self._widths.append(0)
        self._heights.append(0)
        self._phashes.append(0)
        self._states.append(PENDING)
        return len(self) - 1

    def set_checked(self, row: int, width: int, height: int, grey: bytes) -> None:
        """Notes what the decoder measured; hashes are made of many images at once, in a third of the time or less."""
        self.set_good(row, width, height, 0)
        self._grey += grey
        self._grey_rows.append(row)
        if len(self._grey_rows) == AT_ONCE:
            self._hash()

    def set_good(self, row: int, width: int, height: int, phash: int) -> None:
        """Notes what is known of a good image."""
        self._widths[row], self._heights[row], self._phashes[row], self._states[row] = width, height, phash, GOOD

    def set_bad(self, row: int) -> None:
        """Notes that the image cannot be used."""
        self._states[row] = BAD

    def path(self, row: int) -> str:
        """Member name, as in the upload."""
        return self._paths[self._path_ends[row] : self._path_ends[row + 1]].decode()

    def paths(self, rows: Iterable[int]) -> list[str]:
        """Member names of some rows; for passes that need them at once."""
        return [self.path(row) for row in rows]

    def place(self, row: int) -> tuple[int, int]:
        """Offset and length in the spool."""
        return self._offsets[row], self._lengths[row]

    def hex_digest(self, row: int) -> str:
        """sha256 of the encoded bytes."""
        return self._sha256[32 * row : 32 * (row + 1)].hex()

    @property
    def is_good(self) -> NDArray[np.bool_]:
        """Which rows decoded."""
        return np.asarray(np.frombuffer(self._states, dtype=np.int8) == GOOD)

    @property
    def sha256(self) -> NDArray[np.uint8]:
        """Digests of the encoded bytes."""
        return np.frombuffer(self._sha256, dtype=np.uint8).reshape(-1, 32)

    @property
    def phash(self) -> NDArray[np.uint64]:
        """Perceptual hashes."""
        self._hash()
        return np.frombuffer(self._phashes, dtype=np.uint64)

    @property
    def length(self) -> NDArray[np.int64]:
        """Encoded sizes, bytes."""
        return np.frombuffer(self._lengths, dtype=np.int64)

    @property
    def width(self) -> NDArray[np.uint32]:
        """Upright widths, pixels."""
        return np.frombuffer(self._widths, dtype=np.uint32)

    @property
    def height(self) -> NDArray[np.uint32]:
        """Upright heights, pixels."""
        return np.frombuffer(self._heights, dtype=np.uint32)

    def _hash(self) -> None:
        for row, value in zip(self._grey_rows, phash(self._grey).tolist(), strict=True):
            self._phashes[row] = value
        self._grey.clear()
        self._grey_rows.clear()
