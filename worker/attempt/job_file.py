"""The file that a job makes for whoever asked, under its attempt's own prefix, in one of two forms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_json

from app import failpoints
from worker.attempt.context import RunContext

_LINES = 64

Write = Callable[[pa.Table], None]


def store(context: RunContext, path: Path) -> str:
    """Puts it where the job's row will say that it is; its key."""
    key = f"{context.document.bundle_prefix}/{path.name}"
    context.storage.put(key, path)
    failpoints.reach("predictions_stored")
    return key


@contextmanager
def parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """One Parquet file; each table becomes a row group."""
    with pq.ParquetWriter(path, schema) as writer:
        yield writer.write_table


@contextmanager
def jsonl(path: Path, _schema: pa.Schema) -> Iterator[Write]:
    """One JSON object a line, with the fields of the table."""
    with path.open("wb") as file:

        def write(table: pa.Table) -> None:
            for batch in table.to_batches(max_chunksize=_LINES):
                file.writelines(to_json(row, inf_nan_mode="null") + b"\n" for row in batch.to_pylist())

        yield write


WRITERS = {"parquet": parquet, "jsonl": jsonl}
