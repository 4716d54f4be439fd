"""Writes the stored form of a dataset: Parquet shards by split, an index without pixels, and a description.

    data/<split>-00000.parquet   image {bytes, path}, label column(s), split, sha256, id
    index.parquet                one row per sample, in stored order, with the place of its bytes
    dataset.json                 task, classes, counts, digest, origin

The shards open in `datasets`, DuckDB and pandas. Image bytes are stored uncompressed (they are compressed already) in
row groups of about 2 MB, so that one read is bounded. Each file is written to the scratch folder, handed to the store
and removed: the scratch needs room for the index and one shard.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.artifact import arrow
from worker.data import labels
from worker.data.index_file import IndexFile
from worker.data.labels import Column
from worker.data.row_groups import Group, Samples, groups
from worker.data.splits import SPLITS
from worker.data.spool import Spool

FORMAT_VERSION = 1
SHARD_BYTES = 256 * 2**20
INDEX = "index.parquet"


class DatasetStore(Protocol):
    """Where a dataset's files go: object storage under its prefix, or a folder in tests."""

    def put(self, relative_name: str, local_path: Path) -> None:
        """Keeps a copy of the file under the name."""
        ...


def digest(samples: Samples) -> str:
    """sha256 over the sorted (id, sha256, label, split): equal for equal content, in whatever order it came."""
    total = hashlib.sha256()
    for place in np.argsort(samples.keys).tolist():
        record = samples.records.at(int(samples.rows[place]))
        texts = [column.text(place) for column in samples.columns]
        line = [record.id, record.sha256.hex(), texts, SPLITS[samples.split[place]]]
        total.update(json.dumps(line).encode() + b"\n")
    return total.hexdigest()


def write(
    samples: Samples, spool: Spool, store: DatasetStore, scratch: Path, progress: Callable[[float], None]
) -> list[str]:
    """Writes and hands over the shards, then the index; `progress` gets the share of samples written.

    Returns:
        the names of the shards.

    Raises:
        OSError: no room in the scratch folder or the store.
    """
    files, num_done = list[str](), 0
    with _handed_over(INDEX, store, scratch) as place, IndexFile(place, samples) as index:
        for split, split_name in enumerate(SPLITS):
            for shard, members in groupby(_sharded(groups(samples, split)), key=itemgetter(0)):
                files.append(f"data/{split_name}-{shard:05d}.parquet")
                with (
                    _handed_over(files[-1], store, scratch) as local,
                    _shard_writer(local, samples.columns) as writer,
                ):
                    for number, (_, group) in enumerate(members):
                        writer.write_batch(_batch(samples, group, spool))
                        index.add(group, files[-1], number)
                        num_done += len(group.records)
                        progress(num_done / len(samples.rows))
    return files


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
    local = scratch / f"handed-over-{Path(name).name}"
    try:
        yield local
        store.put(name, local)
    finally:
        local.unlink(missing_ok=True)


def _sharded(members: Iterator[Group]) -> Iterator[tuple[int, Group]]:
    """Each row group with the number of its shard, which is full once it has its bytes."""
    shard, num_bytes = 0, 0
    for group in members:
        if num_bytes >= SHARD_BYTES:
            shard, num_bytes = shard + 1, 0
        num_bytes += group.num_bytes
        yield shard, group


def _shard_writer(local: Path, columns: tuple[Column, ...]) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        local, _schema(columns), compression="none", use_dictionary=["split"], write_statistics=["split", "id"]
    )


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


def _batch(samples: Samples, group: Group, spool: Spool) -> pa.RecordBatch:
    records = group.records
    data, start = memoryview(bytearray(group.num_bytes)), 0
    for one in records:
        spool.read_into(data[start : start + one.length], one.offset)
        start += one.length
    encoded = arrow.strings(pa.binary(), np.array([one.length for one in records]), data)
    paths = arrow.texts([one.path for one in records])
    return pa.record_batch(
        [
            pa.StructArray.from_arrays([encoded, paths], ["bytes", "path"]),
            *(labels.to_arrow(column.take(group.places)) for column in samples.columns),
            arrow.texts([SPLITS[split] for split in samples.split[group.places]]),
            arrow.texts([one.sha256.hex() for one in records]),
            arrow.texts([one.id for one in records]),
        ],
        schema=_schema(samples.columns),
    )
