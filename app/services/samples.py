"""Samples of a stored dataset, read from its index; the rows never enter the database."""

import json
from collections.abc import Iterator
from typing import Any

from app.db.models import Dataset
from app.errors import NotFound
from app.services import datasets, paging
from app.storage import Storage

COLUMNS = ["id", "path", "split", "sha256", "width", "height"]


def page(
    storage: Storage, dataset: Dataset, limit: int, after: str | None, *, split: str | None, label: str | None
) -> tuple[list[dict[str, Any]], bool]:
    """Samples after the id `after`, in stored order; and whether there are more.

    Args:
        storage: where the dataset lies.
        dataset: a ready one.
        limit: most samples.
        after: last id of the previous page.
        split: only samples of this split.
        label: only samples that bear this name in the first label column.

    Raises:
        NotFound: no sample has the id `after`.
    """
    import pyarrow.parquet as pq

    prefix = datasets.prefix(dataset.project_id, dataset.id)
    columns = json.loads(storage.fetch(f"{prefix}/dataset.json").read_text("utf-8"))["label_columns"]
    rows: list[dict[str, Any]] = []
    with pq.ParquetFile(storage.fetch(f"{prefix}/index.parquet")) as file:
        for table in _tables(file, 0 if after is None else _behind(file, dataset, after)):
            wanted = _filtered(table, columns[0] if columns else None, split, label)
            rows += (_row(row, columns) for row in wanted.slice(0, limit + 1 - len(rows)).to_pylist())
            if len(rows) > limit:
                break
    number = paging.num_fitting(len(json.dumps(row)) for row in rows[:limit])
    return rows[:number], len(rows) > number


def _behind(file: Any, dataset: Dataset, sample_id: str) -> int:
    """The place behind a sample, which is looked for among the ids alone."""
    import pyarrow.compute as pc

    passed = 0
    for group in range(file.num_row_groups):
        ids = file.read_row_group(group, columns=["id"])["id"]
        if (place := pc.index(ids, sample_id).as_py()) >= 0:
            return passed + int(place) + 1
        passed += len(ids)
    raise NotFound(f"expected a sample of {dataset.id}; found none with id {sample_id!r}")


def _tables(file: Any, first: int) -> Iterator[Any]:
    """What the API shows of the samples from a place on, a row group at a time: an index may have millions of rows."""
    hidden = {"group", "phash", "file", "row_group", "row"}
    names = [name for name in file.schema_arrow.names if name not in hidden]
    for group in range(file.num_row_groups):
        number = file.metadata.row_group(group).num_rows
        if first < number:
            yield file.read_row_group(group, columns=names).slice(first)
        first = max(0, first - number)


def _filtered(table: Any, first: dict[str, Any] | None, split: str | None, label: str | None) -> Any:
    """The samples of a split, and those that bear a name in the first label column."""
    import pyarrow.compute as pc

    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    if label is not None:
        table = (
            table.take(_bearers(table[first["name"]].combine_chunks(), first["names"], label)) if first else table[:0]
        )
    return table


def _bearers(values: Any, names: list[str], label: str) -> Any:
    """Places of the samples that bear a name, alone or among others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if label not in names:
        return pa.array([], pa.int64())
    wanted = names.index(label)
    if pa.types.is_list(values.type):
        return pc.list_parent_indices(values).filter(pc.equal(pc.list_flatten(values), wanted))
    return pc.indices_nonzero(pc.equal(values, wanted))


def _row(row: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
    values = {column["name"]: _value(row[column["name"]], column["names"]) for column in columns}
    out = {name: row[name] for name in COLUMNS}
    out["label"] = next(iter(values.values()), None)
    out["labels"] = values if len(columns) > 1 else None
    return out


def _value(value: Any, names: list[str]) -> Any:
    """Indices into the names as names; numbers and missing labels as they are."""
    if value is None or not names:
        return value
    return [names[index] for index in value] if isinstance(value, list) else names[value]
