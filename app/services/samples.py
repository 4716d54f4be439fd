"""Samples of a stored dataset, read from its index; the rows never enter the database."""

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

    Raises:
        NotFound: no sample has the id `after`.
    """
    import pyarrow.compute as pc

    path = storage.fetch(f"{datasets.prefix(dataset.project_id, dataset.id)}/index.parquet")
    table = _table(path, dataset.digest or "")
    names = [item["name"] for item in dataset.classes]
    if after is not None:
        position = pc.index(table["id"], after).as_py()
        if position < 0:
            raise NotFound(f"expected a sample of {dataset.id}; found none with id {after!r}")
        table = table.slice(position + 1)
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
    columns = [name for name in table.column_names if name not in COLUMNS]
    if label is not None:
        wanted = names.index(label) if label in names else -1
        table = table.filter(pc.equal(table[columns[0]], wanted))
    rows = table.slice(0, limit).to_pylist()
    return [_row(row, columns, names) for row in rows], table.num_rows > limit


def _row(row: dict[str, Any], columns: list[str], names: list[str]) -> dict[str, Any]:
    values = {column: _value(row[column], names) for column in columns}
    out = {name: row[name] for name in COLUMNS}
    out["label"] = values[columns[0]] if columns else None
    out["labels"] = values if len(columns) > 1 else None
    return out


def _value(value: Any, names: list[str]) -> Any:
    """An index into the classes as the class's name; other values as they are."""
    return names[value] if isinstance(value, int) and names else value


@lru_cache(maxsize=8)
def _table(path: Path, digest: str) -> Any:
    """The columns that the API shows; cached, since a ready dataset never changes. `digest` is part of the key."""
    import pyarrow.parquet as pq

    del digest
    present = pq.read_schema(path).names
    labels = [name for name in present if name == "label" or name.startswith("label_")]
    return pq.read_table(path, columns=[*COLUMNS, *labels])
