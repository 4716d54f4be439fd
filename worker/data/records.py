"""What is known of each image while it is ingested: most of it in a file, so that many take little more memory.

What is found when an image is read (its name, digest, id and place) is written once, in order, and read again as it is
wanted. What is measured later is in columns, 25 bytes per image.
"""

import hashlib
import os
import struct
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from worker.data.phash import phash
from worker.data.spool import Stored

# Images that are hashed together, or read together where they lie together.
AT_ONCE = 256
PENDING, GOOD, BAD = 0, 1, 2
_HEAD = struct.Struct("<10s32s2Q")
_BUFFER_BYTES = 2**16
# More than so many bytes for images that are wanted together: they do not lie together.
_MOST_BYTES = 2**20


class Record(NamedTuple):
    """What was found when an image was read.

    Args:
        key: the id of the sample in ten bytes.
        sha256: of the encoded bytes.
        offset: in the spool.
        length: of the encoded bytes; 0 for an empty file, and where they could not even be stored.
        path: member name, as in the upload.
    """

    key: bytes
    sha256: bytes
    offset: int
    length: int
    path: str

    @property
    def id(self) -> str:
        """Of the sample; stable in every child of a dataset, since it depends on the member's name and bytes alone."""
        return f"s_{self.key.hex()}"


class Records:
    """A growing table, one row per image. Use as a context: leaving it gives its file back. N is the number of rows.

    The arrays that it gives are views: none can be held while another image is added.

    Args:
        scratch: a folder for its file.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, scratch: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=scratch, buffering=0)  # noqa: SIM115
        self._new = bytearray()
        self._num_written = 0
        self._ends = array("Q", [0])
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
        name = path.encode()
        key = hashlib.sha256(b"%b\0%b" % (name, stored.sha256.hex().encode())).digest()[:10]
        self._new += _HEAD.pack(key, stored.sha256, stored.offset, stored.length) + name
        self._ends.append(self._num_written + len(self._new))
        if len(self._new) > _BUFFER_BYTES:
            self._write()
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

    def at(self, row: int) -> Record:
        """What was found of one image."""
        return _parsed(self._read(self._ends[row], self._ends[row + 1]))

    def each(self, rows: Iterable[int]) -> Iterator[Record]:
        """What was found of several images, in the order asked for."""
        remaining = map(int, rows)
        while block := list(islice(remaining, AT_ONCE)):
            start, end = self._ends[min(block)], self._ends[max(block) + 1]
            if end - start > _MOST_BYTES:
                yield from map(self.at, block)
                continue
            data = memoryview(self._read(start, end))
            for row in block:
                yield _parsed(data[self._ends[row] - start : self._ends[row + 1] - start])

    def path(self, row: int) -> str:
        """Member name, as in the upload."""
        return self.at(row).path

    def leading(self, rows_N: NDArray[np.int64]) -> NDArray[np.uint64]:
        """First eight bytes of the digests, as numbers that stand in the same order."""
        numbers = (int.from_bytes(one.sha256[:8], "big") for one in self.each(rows_N))
        return np.fromiter(numbers, np.uint64, len(rows_N))

    @property
    def is_good(self) -> NDArray[np.bool_]:
        """Which rows decoded."""
        return np.asarray(np.frombuffer(self._states, dtype=np.int8) == GOOD)

    @property
    def phash(self) -> NDArray[np.uint64]:
        """Perceptual hashes."""
        self._hash()
        return np.frombuffer(self._phashes, dtype=np.uint64)

    @property
    def width(self) -> NDArray[np.uint32]:
        """Upright widths, pixels."""
        return np.frombuffer(self._widths, dtype=np.uint32)

    @property
    def height(self) -> NDArray[np.uint32]:
        """Upright heights, pixels."""
        return np.frombuffer(self._heights, dtype=np.uint32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _hash(self) -> None:
        for row, value in zip(self._grey_rows, phash(self._grey).tolist(), strict=True):
            self._phashes[row] = value
        self._grey.clear()
        self._grey_rows.clear()

    def _write(self) -> None:
        view = memoryview(bytes(self._new))
        self._new.clear()
        while view:
            written = os.pwrite(self._file.fileno(), view, self._num_written)
            self._num_written += written
            view = view[written:]

    def _read(self, start: int, end: int) -> bytes:
        if end > self._num_written:
            self._write()
        return os.pread(self._file.fileno(), end - start, start)


def _parsed(data: bytes | memoryview) -> Record:
    key, sha256, offset, length = _HEAD.unpack_from(data)
    return Record(key, sha256, offset, length, bytes(data[_HEAD.size :]).decode())
