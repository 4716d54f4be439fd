"""Writes the stored form of a dataset: Parquet shards by split, an index without pixels, and a description.

    data/<split>-00000.parquet   image {bytes, path}, label column(s), split, sha256, id
    index.parquet                one row per sample, in stored order, with the place of its bytes
    dataset.json                 task, classes, counts, digest, origin

The shards open in `datasets`, DuckDB and pandas. Image bytes are stored uncompressed (they are compressed already) in
row groups of about 4 MB, so that one read is bounded. Each file is written to the scratch folder, handed to the store
and removed: the scratch needs room for one.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.artifact import arrow
from worker.data import labels
from worker.data.labels import Column
from worker.data.records import Records
from worker.data.splits import SPLITS
from worker.data.spool import Spool

FORMAT_VERSION = 1
# A group is held three times while it is written: encoded, as pages and in the file's buffer.
ROW_GROUP_BYTES = 4 * 2**20
ROW_GROUP_ROWS = 16384
SHARD_BYTES = 256 * 2**20
_INDEX_ROWS = 8192


class DatasetStore(Protocol):
    """Where a dataset's files go: object storage under its prefix, or a folder in tests."""

    def put(self, relative_name: str, local_path: Path) -> None:
        """Keeps a copy of the file under the name."""
        ...


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a valid dataset. N is their number.

    Args:
        records: all images that were read, bad ones included.
        rows: their rows in `records`.
        ids: of the samples, bytes `S22`.
        columns: labels.
        split: TRAIN, VAL or TEST.
        group: copies of one picture share a number.
    """

    records: Records
    rows: NDArray[np.int64]
    ids: NDArray[np.bytes_]
    columns: tuple[Column, ...]
    split: NDArray[np.int8]
    group: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where each sample's bytes lie. `order` lists samples in stored order; the others follow that order."""

    order: NDArray[np.int64]
    file: NDArray[np.int32]
    row_group: NDArray[np.int32]
    row: NDArray[np.int32]
    files: list[str]


def sample_id(path: str, sha256: str) -> str:
    """Stable in every child of a dataset: it depends on the member's name and bytes alone."""
    return "s_" + hashlib.sha256(f"{path}\0{sha256}".encode()).hexdigest()[:20]


def digest(samples: Samples) -> str:
    """sha256 over the sorted (id, sha256, label, split): equal for equal content, in whatever order it came."""
    total = hashlib.sha256()
    for index in np.argsort(samples.ids):
        line = [
            samples.ids[index].decode(),
            samples.records.hex_digest(samples.rows[index]),
            [column.text(index) for column in samples.columns],
            SPLITS[samples.split[index]],
        ]
        total.update(json.dumps(line).encode() + b"\n")
    return total.hexdigest()


def write_shards(
    samples: Samples, spool: Spool, store: DatasetStore, scratch: Path, progress: Callable[[float], None]
) -> Places:
    """Writes and hands over the shards; `progress` gets the share of bytes written.

    Raises:
        OSError: no room in the scratch folder or the store.
    """
    lengths_N = samples.records.length[samples.rows]
    order_N = np.argsort(samples.split, kind="stable")
    file_N, row_group_N, row_N = (np.empty(len(order_N), dtype=np.int32) for _ in range(3))
    files: list[str] = []
    done_bytes, start = 0, 0
    for split, shard in _shards(samples.split[order_N], lengths_N[order_N]):
        name = f"data/{split}-{sum(file.startswith(f'data/{split}-') for file in files):05d}.parquet"
        with _handed_over(name, store, scratch) as local, _shard_writer(local, samples.columns) as writer:
            for number, size in enumerate(shard):
                members = order_N[start : start + size]
                writer.write_batch(_batch(samples, members, lengths_N[members], spool))
                file_N[start : start + size] = len(files)
                row_group_N[start : start + size] = number
                row_N[start : start + size] = np.arange(size)
                start += size
                done_bytes += int(lengths_N[members].sum())
                progress(done_bytes / max(1, int(lengths_N.sum())))
        files.append(name)
    return Places(order_N, file_N, row_group_N, row_N, files)


def write_index(samples: Samples, places: Places, store: DatasetStore, scratch: Path) -> str:
    """Writes index.parquet; returns its name."""
    name = "index.parquet"
    schema = _index_schema(samples.columns)
    with (
        _handed_over(name, store, scratch) as local,
        pq.ParquetWriter(local, schema, compression="snappy") as writer,
    ):
        for start in range(0, len(places.order), _INDEX_ROWS):
            # A group of its own: a batch would wait in memory for a million rows.
            batch = _index_batch(samples, places, slice(start, start + _INDEX_ROWS))
            writer.write_table(pa.Table.from_batches([batch]))
    return name


def write_description(description: dict[str, Any], store: DatasetStore, scratch: Path) -> str:
    """Writes dataset.json; returns its name."""
    name = "dataset.json"
    with _handed_over(name, store, scratch) as local:
        text = json.dumps({"format_version": FORMAT_VERSION, **description}, indent=1)
        local.write_text(text + "\n", encoding="utf-8")
    return name


@contextmanager
def _handed_over(name: str, store: DatasetStore, scratch: Path) -> Iterator[Path]:
    """A scratch file that goes to the store once written, and is gone afterwards in any case."""
    local = scratch / "handed-over"
    try:
        yield local
        store.put(name, local)
    finally:
        local.unlink(missing_ok=True)


def _shard_writer(local: Path, columns: tuple[Column, ...]) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        local, _schema(columns), compression="none", use_dictionary=["split"], write_statistics=["split", "id"]
    )


def _shards(split_N: NDArray[np.int8], lengths_N: NDArray[np.int64]) -> Iterator[tuple[str, list[int]]]:
    """Split and row-group sizes of each shard, over samples sorted by split."""
    for split, split_name in enumerate(SPLITS):
        lengths = lengths_N[split_N == split]
        shard: list[int] = []
        shard_bytes, size, size_bytes = 0, 0, 0
        for length in lengths.tolist():
            if size and (size_bytes + length > ROW_GROUP_BYTES or size == ROW_GROUP_ROWS):
                shard.append(size)
                shard_bytes += size_bytes
                size, size_bytes = 0, 0
                if shard_bytes >= SHARD_BYTES:
                    yield split_name, shard
                    shard, shard_bytes = [], 0
            size += 1
            size_bytes += length
        if size:
            yield split_name, [*shard, size]


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = {"dtype": "string", "_type": "Value"}
    features = {
        "image": {"_type": "Image"},
        **{column.name: labels.huggingface_feature(column) for column in columns},
        "split": text,
        "sha256": text,
        "id": text,
    }
    return pa.schema(
        [
            ("image", image),
            *((column.name, labels.arrow_type(column)) for column in columns),
            ("split", pa.string()),
            ("sha256", pa.string()),
            ("id", pa.string()),
        ],
        metadata=labels.huggingface_metadata(features),
    )


def _batch(samples: Samples, members: NDArray[np.int64], lengths: NDArray[np.int64], spool: Spool) -> pa.RecordBatch:
    records, rows = samples.records, samples.rows[members]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    data = memoryview(bytearray(int(ends[-1])))
    for row, start, end in zip(rows.tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        spool.read_into(data[start:end], records.place(row)[0])
    encoded = arrow.strings(pa.binary(), lengths, data)
    paths = arrow.texts([records.path(row) for row in rows])
    return pa.record_batch(
        [
            pa.StructArray.from_arrays([encoded, paths], ["bytes", "path"]),
            *(labels.to_arrow(column.take(members)) for column in samples.columns),
            arrow.texts([SPLITS[split] for split in samples.split[members]]),
            arrow.texts([records.hex_digest(row) for row in rows]),
            _ids(samples, members),
        ],
        schema=_schema(samples.columns),
    )


def _index_schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            *((column.name, labels.arrow_type(column)) for column in columns),
            ("split", pa.string()),
            ("sha256", pa.string()),
            ("group", pa.int64()),
            ("width", pa.uint32()),
            ("height", pa.uint32()),
            ("phash", pa.uint64()),
            ("file", pa.string()),
            ("row_group", pa.int32()),
            ("row", pa.int32()),
        ]
    )


def _index_batch(samples: Samples, places: Places, span: slice) -> pa.RecordBatch:
    records, members = samples.records, places.order[span]
    rows = samples.rows[members]
    return pa.record_batch(
        [
            _ids(samples, members),
            arrow.texts([records.path(row) for row in rows]),
            *(labels.to_arrow(column.take(members)) for column in samples.columns),
            arrow.texts([SPLITS[split] for split in samples.split[members]]),
            arrow.texts([records.hex_digest(row) for row in rows]),
            arrow.numbers(samples.group[members]),
            arrow.numbers(records.width[rows]),
            arrow.numbers(records.height[rows]),
            arrow.numbers(records.phash[rows]),
            arrow.texts([places.files[file] for file in places.file[span]]),
            arrow.numbers(places.row_group[span]),
            arrow.numbers(places.row[span]),
        ],
        schema=_index_schema(samples.columns),
    )


def _ids(samples: Samples, members: NDArray[np.int64]) -> pa.Array:
    ids = samples.ids[members]
    return arrow.strings(pa.string(), np.full(len(ids), ids.itemsize), ids.tobytes())
