"""What every file has which a job makes of a dataset: a row for each sample asked for, and which sample it is."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.artifact import arrow
from app.errors import JobFailure
from worker.contract.task import Rows
from worker.data import labels
from worker.data.labels import Column
from worker.data.samples import Index
from worker.data.splits import NONE, SPLITS


def fields(index: Index) -> list[tuple[str, pa.DataType]]:
    """Names and types, in their order."""
    columns = index.columns
    found = [("id", pa.string()), ("path", pa.string()), ("sha256", pa.string()), ("split", pa.string())]
    found.append(("label", _label_type(columns[0])))
    if len(columns) > 1:
        found.append(("labels", pa.struct([(column.name, _label_type(column)) for column in columns])))
    return found


def wanted(index: Index, splits: list[str] | None) -> Rows:
    """Rows of the index in stored order.

    Raises:
        JobFailure: dataset_invalid, none is in the splits.
    """
    numbers = [SPLITS.index(split) for split in splits or SPLITS]
    rows: Rows = np.flatnonzero(np.isin(index.split, numbers))
    if not len(rows):
        raise JobFailure("dataset_invalid", f"expected images in splits {splits}; found none; ask for others")
    return rows


def arrays(index: Index, rows_N: NDArray[np.int64]) -> dict[str, pa.Array]:
    """The columns of some rows of the index; null where it has nothing.

    Shape:
        rows_N: [N]
    """
    columns = [column.take(rows_N) for column in index.columns]
    found = {
        "id": arrow.texts([name.decode() or None for name in index.ids[rows_N]]),
        "path": index.paths.take(arrow.numbers(rows_N)),
        "sha256": arrow.texts([digest.decode() or None for digest in index.sha256[rows_N]]),
        "split": arrow.texts([None if split == NONE else SPLITS[split] for split in index.split[rows_N]]),
        "label": _label(columns[0]),
    }
    if len(columns) > 1:
        found["labels"] = arrow.structs({column.name: _label(column) for column in columns})
    return found


def _label_type(column: Column) -> pa.DataType:
    return {"class": pa.string(), "classes": pa.list_(pa.string()), "number": pa.float64()}[column.kind]


def _label(column: Column) -> pa.Array:
    """Names instead of their numbers, as they were uploaded."""
    stored, names = labels.to_arrow(column), arrow.texts(column.names)
    if column.kind == "number":
        return stored
    if not column.names:
        return pa.nulls(len(stored), _label_type(column))
    if column.kind == "class":
        # A missing label is null, whatever number stands below it.
        return names.take(stored)
    return arrow.lists_of(arrow.plain(stored.offsets), names.take(stored.values))
