"""What an ingestion leaves, as tests look at it, and files of manifests."""

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from worker.data.ingest import IngestResult
from worker.data.samples import iter_images, load_index

from .conftest import FolderStore, draw

Run = Callable[..., IngestResult]


def codes(result: IngestResult) -> set[str]:
    return {problem.code for problem in result.problems}


def stored(store: FolderStore) -> dict[str, tuple[str, str, bytes]]:
    """Path -> label, split, bytes of every stored sample."""
    index = load_index(store.folder)
    data = dict(iter_images(index, np.arange(len(index)), lambda name: store.folder / name))
    splits = ("train", "val", "test")
    return {
        path: (index.columns[0].text(row), splits[index.split[row]], data[row])
        for row, path in enumerate(index.paths.to_pylist())
    }


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def flat(num: int = 12) -> dict[str, bytes]:
    return {f"images/{number}.png": draw(number) for number in range(num)}
