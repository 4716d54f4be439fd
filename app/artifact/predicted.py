"""predictions.parquet: what a model says of items that have a known answer.

Shape legend: N items, C classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import selection
from app.artifact.selection import NAMED_BY


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the model says of items that have a known answer, row by row.

    Args:
        ids: of the samples in their dataset.
        sha256: of the images' bytes.
        labels: the true class; None where nobody knows it.
        predicted: the model's class.
        splits: where the sample belongs (`test`, as a rule).
        probabilities: one column per label of the spec, in its order.
        baselines: the classes that others named, by their names in the report (`frozen`, `scratch`, `source_only`;
            `transfer` where one of these is served instead), so that whoever reads them can pair item by item.

    Shape:
        probabilities: [N, C]
    """

    ids: list[str]
    sha256: list[str]
    labels: list[str | None]
    predicted: list[str]
    splits: list[str]
    probabilities: NDArray[np.float32]
    baselines: Mapping[str, list[str]] = field(default_factory=dict)


def write(path: Path, predictions: Predictions, labels: tuple[str, ...]) -> None:
    """Writes the Parquet file; the order of the probabilities stands in the schema's metadata under `labels`.

    Raises:
        ValueError: columns of different lengths, or not one probability per label.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from app.artifact import arrow

    num_items = len(predictions.ids)
    probabilities = np.asarray(predictions.probabilities, dtype=np.float32)
    if probabilities.shape != (num_items, len(labels)):
        raise ValueError(f"expected probabilities of shape {(num_items, len(labels))}; found {probabilities.shape}")
    text: dict[str, Any] = {
        "id": predictions.ids,
        "sha256": predictions.sha256,
        "label": predictions.labels,
        "predicted": predictions.predicted,
        "split": predictions.splits,
        **{f"{NAMED_BY}{name}": named for name, named in predictions.baselines.items()},
    }
    lengths = {name: len(values) for name, values in text.items()}
    if set(lengths.values()) != {num_items}:
        raise ValueError(f"expected columns of one length; found {lengths}")
    offsets = np.arange(num_items + 1) * len(labels)
    columns: dict[str, Any] = {name: arrow.texts(values) for name, values in text.items()}
    columns["probabilities"] = arrow.lists_of(offsets, arrow.numbers(probabilities.ravel()))
    table = pa.table(columns).replace_schema_metadata({"labels": json.dumps(labels, ensure_ascii=False)})
    pq.write_table(table, path, compression="zstd")


def read(path: Path) -> Predictions:
    """The inverse of `write`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    num_labels = len(json.loads(table.schema.metadata[b"labels"]))
    flat = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predictions(
        ids=table["id"].to_pylist(),
        sha256=table["sha256"].to_pylist(),
        labels=table["label"].to_pylist(),
        predicted=table["predicted"].to_pylist(),
        splits=table["split"].to_pylist(),
        probabilities=flat.reshape(table.num_rows, num_labels).astype(np.float32, copy=False),
        baselines=selection.named(table),
    )


def read_labels(path: Path) -> list[str]:
    """The labels in the order of a predictions file's probabilities, as `write` was given them."""
    import pyarrow.parquet as pq

    return list(json.loads(pq.read_schema(path).metadata[b"labels"]))
