"""selection.parquet: what a transfer and its baselines named of selection data, which the report's verdicts stand on.

Nobody of them had learned from an item that it names here, and no choice that made it has seen its answer. Classes are
enough: a verdict counts who is right. Whoever reads it can pair item by item and test again; and a network from scratch
for which the job had no time can be held against the transfer later.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Columns of what one of them named, here and in predictions.parquet.
NAMED_BY = "predicted_"
TRANSFER = "transfer"
_NOTES = b"graft"


@dataclass(frozen=True, slots=True)
class SelectionPredictions:
    """Row by row, in one order.

    Args:
        ids: of the samples in their dataset.
        labels: the true class.
        splits: where the sample belongs: `train` or `val`, as a rule.
        named: the class that each named, None where it has said nothing of the item: of the transfer (`transfer`), and
            of the baselines by their names in the report (`frozen`, `scratch`, `source_only`).
        what: which items the transfer named, for people.
        optimism: what these very items chose, and so may flatter; None where they chose nothing.
    """

    ids: list[str]
    labels: list[str]
    splits: list[str]
    named: Mapping[str, list[str | None]]
    what: str
    optimism: str | None = None


def write(path: Path, found: SelectionPredictions) -> None:
    """Writes the Parquet file; `what` and `optimism` stand in the schema's metadata.

    Raises:
        ValueError: columns of different lengths, or none of the transfer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from app.artifact import arrow

    columns: dict[str, Any] = {"id": found.ids, "label": found.labels, "split": found.splits}
    columns |= {f"{NAMED_BY}{name}": named for name, named in found.named.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1 or TRANSFER not in found.named:
        raise ValueError(f"expected columns of one length, one of them {NAMED_BY}{TRANSFER}; found {lengths}")
    table = pa.table({name: arrow.texts(values) for name, values in columns.items()})
    notes = json.dumps({"what": found.what, "optimism": found.optimism}, ensure_ascii=False)
    pq.write_table(table.replace_schema_metadata({_NOTES: notes.encode()}), path, compression="zstd")


def named(table: Any) -> dict[str, list[Any]]:
    """What each named of the rows of an Arrow table, by who it was."""
    columns = [name for name in table.column_names if name.startswith(NAMED_BY)]
    return {name.removeprefix(NAMED_BY): table[name].to_pylist() for name in columns}


def read(path: Path) -> SelectionPredictions:
    """The inverse of `write`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    notes = json.loads(table.schema.metadata[_NOTES])
    return SelectionPredictions(
        ids=table["id"].to_pylist(),
        labels=table["label"].to_pylist(),
        splits=table["split"].to_pylist(),
        named=named(table),
        what=notes["what"],
        optimism=notes["optimism"],
    )
