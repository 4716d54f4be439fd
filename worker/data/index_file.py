"""Writes index.parquet, which says of every sample all but its pixels, while the shards are written."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.artifact import arrow
from worker.data import labels
from worker.data.labels import Column
from worker.data.row_groups import Group, Samples
from worker.data.splits import SPLITS

# Of one row group: larger ones take megabytes while they are written, many small ones longer to read.
_ROWS = 2048


class IndexFile:
    """A growing index. Use as a context: leaving it ends the file.

    Args:
        path: of the file.
        samples: all of them.
    """

    def __init__(self, path: Path, samples: Samples) -> None:
        self._samples, self._schema = samples, _schema(samples.columns)
        # Most other texts are different: dictionaries of them would take more memory than all else.
        self._writer = pq.ParquetWriter(path, self._schema, compression="snappy", use_dictionary=["split", "file"])
        self._waiting: list[pa.RecordBatch] = []

    def add(self, group: Group, file: str, number: int) -> None:
        """Notes a row group that is the shard's `number`-th.

        Raises:
            OSError: the disk is full.
        """
        self._waiting.append(self._batch(group, file, number))
        if sum(len(batch) for batch in self._waiting) >= _ROWS:
            self._flush()

    def _batch(self, group: Group, file: str, number: int) -> pa.RecordBatch:
        samples, places, num = self._samples, group.places, len(group.places)
        rows = samples.rows[places]
        return pa.record_batch(
            [
                arrow.texts([one.id for one in group.records]),
                arrow.texts([one.path for one in group.records]),
                *(labels.to_arrow(column.take(places)) for column in samples.columns),
                arrow.texts([SPLITS[split] for split in samples.split[places]]),
                arrow.texts([one.sha256.hex() for one in group.records]),
                arrow.numbers(samples.group[places]),
                arrow.numbers(samples.records.width[rows]),
                arrow.numbers(samples.records.height[rows]),
                arrow.numbers(samples.records.phash[rows]),
                arrow.texts([file] * num),
                arrow.numbers(np.full(num, number, dtype=np.int32)),
                arrow.numbers(np.arange(num, dtype=np.int32)),
            ],
            schema=self._schema,
        )

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=len(table))
            self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writer:
            if error is None:
                self._flush()


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
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
