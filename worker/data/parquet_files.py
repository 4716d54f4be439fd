"""Parquet in the layout of Hugging Face `datasets`: a column `image` (struct of bytes and path, or bytes) and labels.

Our own shards have this layout, so a downloaded dataset can be uploaded again. Rows are read a few at a time, since a
row group may hold gigabytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worker.data.formats import Assigned, given_split, split_number
from worker.data.labelling import LABEL_COLUMNS, LABEL_PREFIXES, SPLIT_COLUMN, Labelled, detect_task, to_columns
from worker.data.members import normal, unsafe
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.splits import NONE

IMAGE_COLUMNS = ("image", "img")
# Of our own shards, which say nothing new when they come back.
OWN_COLUMNS = ("sha256", "id")
_ROWS_AT_ONCE = 32
_BUFFER_BYTES = 2**20


@dataclass(slots=True)
class Rows:
    """Labels and splits of the rows read so far, beside the records of their images.

    `label_columns` is None before the first file, which fixes it; `names` are the class names of columns stored as
    numbers.
    """

    found: Labelled
    label_columns: tuple[str, ...] | None = None
    names: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its image's path as the table says it, its bytes, labels by name, its split; the share before it."""

    path: str
    data: bytes
    values: list[Any]
    split: int
    share_before: float


def read(path: Path, filename: str, task: str | None, rows: Rows, max_rows: int, problems: Problems) -> Iterator[Row]:
    """Rows of one file in order.

    Raises:
        Rejected: the file cannot be read, has more rows than `max_rows` or no image column, something else for an image
            or its path, or other label columns than the files before it.
        MemoryError: a few of its rows take more memory than there is.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            _check_size(file, filename, max_rows, problems)
            schema = file.schema_arrow
            features = _features(schema)
            image = _image_column(schema, features, filename, problems)
            _fix_label_columns(schema, features, task, filename, rows, problems)
            used = {image, SPLIT_COLUMN, *(rows.label_columns or ()), *OWN_COLUMNS}
            others = [name for name in schema.names if name not in used]
            if rows.label_columns:
                for name in others:
                    problems.add("column_ignored", filename, found=name)
            elif others:
                problems.add("no_label_column", filename, found=", ".join(others))
            yield from _read_rows(file, filename, image, rows, problems)
    except MemoryError:
        # Arrow's own is an ArrowException as well.
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise problems.reject("parquet_broken", filename, found=str(error).split("\n")[0][:300]) from error


def assign(rows: Rows, records: Records, task: str | None, problems: Problems) -> Assigned:
    """Samples of all rows read."""
    label_columns = rows.label_columns or ()
    found = rows.found
    task = detect_task(label_columns, found.values, task)
    columns, keep = to_columns(label_columns, task, found.rows, found.values, records, problems, rows.names)
    assigned = Assigned(
        task,
        np.array(found.rows, dtype=np.int64)[keep],
        tuple(column.take(keep) for column in columns),
        np.array(found.splits, dtype=np.int8)[keep],
    )
    # A ClassLabel may name classes that no row has; they are no empty classes of this dataset.
    return assigned.without_empty()


def _check_size(file: pq.ParquetFile, filename: str, max_rows: int, problems: Problems) -> None:
    """A million rows of nothing take a few bytes, so they are counted before they are read."""
    metadata = file.metadata
    num_rows = sum(metadata.row_group(place).num_rows for place in range(metadata.num_row_groups))
    if num_rows > max_rows:
        raise problems.reject("bomb", filename, limit=f"{max_rows} rows", found=f"{num_rows} of them")


def _read_rows(file: pq.ParquetFile, filename: str, image: str, rows: Rows, problems: Problems) -> Iterator[Row]:
    label_columns = rows.label_columns or ()
    has_split = SPLIT_COLUMN in file.schema_arrow.names
    file_split = split_number(PurePosixPath(filename).name.split("-")[0].split(".")[0])
    wanted = [image, *label_columns, *([SPLIT_COLUMN] if has_split else [])]
    # Of rows without a name. What the client calls a file may be anything.
    folder = "" if unsafe(filename) else filename
    number, total = 0, max(1, file.metadata.num_rows)
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted, use_threads=False):
        for row in batch.to_pylist():
            path, data = _image(row[image])
            where = f"{filename}:{number}"
            if row[image] is None:
                problems.add("image_missing", where)
            elif not isinstance(path, str | None) or not isinstance(data, bytes | None):
                found = f"an image of {type(data).__name__} with a path of {type(path).__name__}"
                raise problems.reject("parquet_columns", where, found=found)
            elif data is None:
                problems.add("reference_outside", where, found=f"a path without bytes, {path!r}")
            else:
                values = [_named(row[name], rows.names.get(name)) for name in label_columns]
                split = given_split(row[SPLIT_COLUMN], NONE, where, problems) if has_split else file_split
                name = path if path and normal(path) else normal(f"{folder}/row-{number:08d}")
                yield Row(name, data, values, split, number / total)
            number += 1


def _image(value: Any) -> tuple[Any, Any]:
    """Its path and bytes, each of them None where there is none, or whatever the table has under that name."""
    return (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (None, value)


def _named(value: Any, names: list[str] | None) -> Any:
    """A class's name for its number; -1 is how `datasets` writes a missing label."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    if names is None or not isinstance(value, int):
        return _plain(value)
    return names[value] if 0 <= value < len(names) else None


def _plain(value: Any) -> Any:
    """As JSON can say it: bytes, moments and whatever else Parquet knows become text."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _image_column(schema: pa.Schema, features: dict[str, Any], filename: str, problems: Problems) -> str:
    marked = [name for name in schema.names if _kind(features.get(name)) == "Image"]
    for name in (*marked, *IMAGE_COLUMNS):
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return str(name)
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return str(name)
    raise problems.reject("parquet_columns", filename, found=", ".join(schema.names) or "no column")


def _fix_label_columns(
    schema: pa.Schema, features: dict[str, Any], task: str | None, filename: str, rows: Rows, problems: Problems
) -> None:
    classes = [name for name in schema.names if _kind(features.get(name)) == "ClassLabel"]
    found = tuple(name for name in LABEL_COLUMNS if name in schema.names)[:1]
    prefixed = tuple(name for name in schema.names if name.startswith(LABEL_PREFIXES))
    if task == "multi_task" or not found:
        found = tuple(classes) or prefixed or found
    if rows.label_columns not in {None, found}:
        raise problems.reject(
            "parquet_columns",
            filename,
            found=f"the label columns {found}, and {rows.label_columns} in the files before",
        )
    rows.label_columns = found
    for name in found:
        feature = features.get(name)
        if isinstance(feature, dict) and _kind(feature) in {"List", "Sequence", "LargeList"}:
            feature = feature.get("feature")
        if _kind(feature) == "ClassLabel" and isinstance(feature, dict):
            names = [str(one) for one in feature.get("names", [])]
            if rows.names.setdefault(name, names) != names:
                raise problems.reject(
                    "parquet_columns", filename, found=f"other class names in {name} than in the files before"
                )


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Features as `datasets` wrote them into the metadata, or nothing."""
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None
