"""Predictions in chunks, so that a killed attempt loses one at most, and memory never holds more than one.

A chunk is an object `FIRST-END.parquet` of the rows FIRST to END - 1, whole or not at all. What counts are chunks that
follow one another from row 0 on, so every row is there once and in order, whatever was left behind by whom. The sums of
what was said of its images travel in the same object, so that they are those of the same rows.
"""

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app import failpoints
from app.artifact import tensors
from app.serving import moments as sums
from app.serving.moments import Moments
from worker.attempt.context import RunContext

# Metadata of a chunk's schema.
_MOMENTS = b"graft.moments"


class Chunks:
    """The chunks of one job; shared by its attempts.

    Args:
        context: of the attempt.
    """

    def __init__(self, context: RunContext) -> None:
        self._context, self._prefix = context, f"{context.document.checkpoint_prefix}/predictions"
        self._keys, self.num_rows = _chain(list(context.storage.list(self._prefix)))

    def add(self, table: pa.Table, moments: Moments) -> None:
        """Keeps the next rows, and the sums over them; from its return on a killed attempt does not lose them."""
        end = self.num_rows + len(table)
        key = f"{self._prefix}/{self.num_rows:012d}-{end:012d}.parquet"
        with tempfile.TemporaryDirectory(dir=self._context.scratch) as folder:
            path = Path(folder) / "chunk"
            packed = base64.b64encode(tensors.dump(sums.pack(moments)))
            pq.write_table(table.replace_schema_metadata({_MOMENTS: packed}), path)
            self._context.storage.put(key, path)
            failpoints.reach("chunk_stored")
        self._keys.append(key)
        self.num_rows = end

    def read(self) -> Iterator[pa.Table]:
        """The chunks in order, one in memory at a time."""
        for key in self._keys:
            # Not pq.read_table: see `load_index`.
            with pq.ParquetFile(self._context.storage.fetch(key)) as file:
                yield file.read().replace_schema_metadata()

    def moments(self) -> Moments | None:
        """The sums over all rows; None where a chunk has none: an older Graft began the job."""
        found = []
        for key in self._keys:
            packed = (pq.read_schema(self._context.storage.fetch(key)).metadata or {}).get(_MOMENTS)
            if packed is None:
                return None
            found.append(sums.unpack(tensors.loads(base64.b64decode(packed), key)))
        return sums.total(found)


def _chain(keys: list[str]) -> tuple[list[str], int]:
    """The chunks that follow one another from row 0 on, and where they end.

    An attempt that was taken for dead may have gone on for a while: of two that begin at one row the longer counts.
    """
    longest: dict[int, tuple[int, str]] = {}
    for key in keys:
        first, end = map(int, Path(key).stem.split("-"))
        longest[first] = max(longest.get(first, (0, "")), (end, key))
    chain, place = [], 0
    while place in longest:
        place, key = longest[place]
        chain.append(key)
    return chain, place
