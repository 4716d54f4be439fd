"""Samples of a stored dataset, read from its index; the rows never enter the database."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.db.models import Dataset
from app.errors import NotFound
from app.services import datasets
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
    import pyarrow.compute as pc

    prefix = datasets.prefix(dataset.project_id, dataset.id)
    columns = _label_columns(storage.fetch(f"{prefix}/dataset.json"), dataset.digest or "")
    table = _table(storage.fetch(f"{prefix}/index.parquet"), dataset.digest or "")
    if after is not None:
        position = pc.index(table["id"], after).as_py()
        if position < 0:
            raise NotFound(f"expected a sample of {dataset.id}; found none with id {after!r}")
        table = table.slice(position + 1)
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    if label is not None:
        first = columns[0]
        table = table.take(_bearers(table[first["name"]].combine_chunks(), first["names"], label))
    rows = table.slice(0, limit).to_pylist()
    return [_row(row, columns) for row in rows], table.num_rows > limit


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


# A ready dataset never changes; its digest keeps apart what one path held at different times.


@lru_cache(maxsize=32)
def _label_columns(path: Path, _digest: str) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["label_columns"]
    return columns


@lru_cache(maxsize=8)
def _table(path: Path, _digest: str) -> Any:
    """What the API shows, without the places of the images in their shards."""
    import pyarrow.parquet as pq

    hidden = {"group", "phash", "file", "row_group", "row"}
    names = [name for name in pq.read_schema(path).names if name not in hidden]
    with pq.ParquetFile(path) as file:
        return file.read(columns=names)
