"""The samples of a valid dataset, and how they are cut into row groups: by split, in order, a bounded read each."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.data.labels import Column
from worker.data.records import Record, Records

# A group is held three times while it is written: encoded, as pages and in the file's buffer.
ROW_GROUP_BYTES = 2 * 2**20
ROW_GROUP_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a valid dataset. N is their number.

    Args:
        records: all images that were read, bad ones included.
        rows: their rows in `records`.
        keys: ids in ten bytes, as `Record.key`: bytes `S10`.
        columns: labels.
        split: TRAIN, VAL or TEST.
        group: copies of one picture share a number.
    """

    records: Records
    rows: NDArray[np.int64]
    keys: NDArray[np.bytes_]
    columns: tuple[Column, ...]
    split: NDArray[np.int8]
    group: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Group:
    """Samples of one row group: their places among all, and their records."""

    places: NDArray[np.int64]
    records: list[Record]

    @property
    def num_bytes(self) -> int:
        """Of the encoded images."""
        return sum(one.length for one in self.records)


def groups(samples: Samples, split: int) -> Iterator[Group]:
    """Row groups of one split, in order."""
    places = np.flatnonzero(samples.split == split)
    start, num_bytes, records = 0, 0, list[Record]()
    for one in samples.records.each(samples.rows[places]):
        if records and (num_bytes + one.length > ROW_GROUP_BYTES or len(records) == ROW_GROUP_ROWS):
            yield Group(places[start : start + len(records)], records)
            start, num_bytes, records = start + len(records), 0, []
        num_bytes += one.length
        records.append(one)
    if records:
        yield Group(places[start:], records)
