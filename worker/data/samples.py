"""Reading a stored dataset: its index as arrays, and the encoded images, row group by row group, in bounded memory.

N is the number of samples.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.artifact import arrow
from worker.data import labels
from worker.data.labels import Column
from worker.data.splits import SPLITS


@dataclass(frozen=True, slots=True)
class Index:
    """index.parquet and dataset.json as arrays, in stored order: row i is the i-th sample.

    Args:
        ids: of the samples, bytes `S22`.
        paths: member names, an Arrow array of strings.
        columns: labels, one Column per label column; the first is the one that classification uses.
        split: 0 train, 1 val, 2 test, as in `splits.SPLITS`.
        sha256: hex digests of the encoded bytes, `S64`.
        group: copies of one picture share a number.
        width: upright, pixels.
        height: upright, pixels.
        phash: 0 for plain areas.
        file: index into `files`.
        files: names of the shards, relative to the dataset.
        row_group: of the shard.
        row: within the row group.
        description: dataset.json.
        prefix: where the dataset lies in storage, shards included.
    """

    ids: NDArray[np.bytes_]
    paths: pa.Array
    columns: tuple[Column, ...]
    split: NDArray[np.int8]
    sha256: NDArray[np.bytes_]
    group: NDArray[np.int64]
    width: NDArray[np.uint32]
    height: NDArray[np.uint32]
    phash: NDArray[np.uint64]
    file: NDArray[np.int32]
    files: tuple[str, ...]
    row_group: NDArray[np.int32]
    row: NDArray[np.int32]
    description: dict[str, Any]
    prefix: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def label(self) -> NDArray[Any]:
        """Values of the first label column."""
        return self.columns[0].values

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the first label column."""
        return self.columns[0].names

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Rows of one split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def ids_at(self, rows: NDArray[np.int64]) -> list[str]:
        """Ids of some samples, in their order."""
        return [name.decode() for name in self.ids[rows]]

    def splits_at(self, rows: NDArray[np.int64]) -> list[str]:
        """Names of the splits of some samples, in their order."""
        return [SPLITS[number] for number in self.split[rows].tolist()]


def load_index(folder: Path, prefix: str = "") -> Index:
    """Reads the index of a stored dataset.

    Args:
        folder: holds index.parquet and dataset.json.
        prefix: the dataset's place in storage; empty where its shards lie in the folder.
    """
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    # Not pq.read_table: it imports pyarrow.dataset and with it pandas where that is installed, a quarter of a second.
    with pq.ParquetFile(folder / "index.parquet") as file:
        table = file.read().combine_chunks()

    def column(name: str) -> pa.Array:
        values = table.column(name)
        return values.chunk(0) if values.num_chunks else pa.array([], values.type)

    def numbers(name: str) -> NDArray[Any]:
        return arrow.plain(column(name))

    files = column("file").dictionary_encode()
    splits = column("split").dictionary_encode()
    split_codes = np.array([SPLITS.index(name) for name in splits.dictionary.to_pylist()], dtype=np.int8)
    return Index(
        ids=_fixed(column("id"), 22),
        paths=column("path"),
        columns=tuple(
            labels.from_arrow(one["name"], one["kind"], one["names"], column(one["name"]))
            for one in description["label_columns"]
        ),
        split=split_codes[arrow.plain(splits.indices)],
        sha256=_fixed(column("sha256"), 64),
        group=numbers("group"),
        width=numbers("width"),
        height=numbers("height"),
        phash=numbers("phash"),
        file=arrow.plain(files.indices),
        files=tuple(files.dictionary.to_pylist()),
        row_group=numbers("row_group"),
        row=numbers("row"),
        description=description,
        prefix=prefix,
    )


def empty_index() -> Index:
    """The index of a job that works on no dataset."""
    numbers, files = np.empty(0, np.int64), np.empty(0, np.int32)
    return Index(
        ids=np.empty(0, "S22"),
        paths=pa.nulls(0, pa.string()),
        columns=(labels.unlabelled(0),),
        split=np.empty(0, np.int8),
        sha256=np.empty(0, "S64"),
        group=numbers,
        width=numbers.astype(np.uint32),
        height=numbers.astype(np.uint32),
        phash=numbers.astype(np.uint64),
        file=files,
        files=(),
        row_group=files,
        row=files,
        description={},
        prefix="",
    )


def iter_images(index: Index, rows: NDArray[np.int64], locate: Callable[[str], Path]) -> Iterator[tuple[int, bytes]]:
    """Yields (row of the index, encoded image) in stored order, holding one row group (about 2 MB) at a time.

    Args:
        index: of the dataset.
        rows: which samples; any order, without repeats.
        locate: gives the local file of a shard's name. It is called once per shard, when its turn comes, so that the
            shard can be fetched then.
    """
    for number, in_file in groupby(np.sort(rows).tolist(), key=lambda row: int(index.file[row])):
        with pq.ParquetFile(locate(index.files[number]), pre_buffer=False) as file:
            for row_group, members in groupby(in_file, key=lambda row: int(index.row_group[row])):
                table = file.read_row_group(row_group, columns=["image.bytes"])
                data = table.column("image").combine_chunks().field("bytes")
                for row in members:
                    yield row, data[int(index.row[row])].as_py()


def _fixed(values: pa.Array, size: int) -> NDArray[np.bytes_]:
    """Strings of one known length as numpy bytes, without a Python object each."""
    fixed = values.cast(pa.binary()).cast(pa.binary(size))
    buffer = fixed.buffers()[1]
    if buffer is None:
        return np.empty(0, dtype=f"S{size}")
    return np.frombuffer(buffer, dtype=f"S{size}")[fixed.offset : fixed.offset + len(fixed)]
