"""Labels of an upload that has too many, or too long ones: refused in words, before they take any memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.hostile.archives import parquet
from worker.data import checks, labelling, labels
from worker.data.base import BaseDataset
from worker.data.ingest import IngestResult
from worker.data.labels import TooManyLabels
from worker.data.samples import load_index

from .conftest import FolderStore, draw

Run = Callable[..., IngestResult]
PICTURES = {f"{number}.png": draw(number) for number in range(12)}
LONGEST = "n" * checks.MAX_NAME_CHARS


def manifest(given: list[Any], columns: tuple[str, ...] = ("label",)) -> dict[str, bytes]:
    """Pictures in no folder, and a manifest that gives them labels in turn, in the first of the columns."""
    rows = [
        {"file": name} | dict.fromkeys(columns) | {columns[0]: given[place % len(given)]}
        for place, name in enumerate(PICTURES)
    ]
    return PICTURES | {"m.jsonl": "\n".join(map(json.dumps, rows)).encode()}


def failure(result: IngestResult) -> tuple[str, str]:
    assert result.failure is not None
    return result.failure


# Of each bound: its module, the value that still lets these labels through, and what is found behind it.
BOUNDS: dict[str, tuple[Any, int, list[Any], str]] = {
    "MAX_NAMES": (checks, 3, ["a", "b"], "3 of them"),
    "MAX_NAMES_CHARS": (checks, 11, ["aaa", "bbb"], "11 in 3 names"),
    "MAX_CELLS": (labels, 36, [["a", "b"], ["c"]], "12 images x 3 classes"),
    "MAX_VALUES": (labelling, 12, ["a", "b"], "more, in 1 label columns"),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_number(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    module, most, given, found = BOUNDS[bound]
    monkeypatch.setattr(module, bound, most)
    assert run(manifest(given)).state == "ready"
    monkeypatch.setattr(module, bound, most - 1)
    code, words = failure(run(manifest(given), into=FolderStore(tmp_path / "refused")))
    assert code == "too_many_labels"
    assert f"; found {found};" in words


def test_columns_that_rows_do_not_name_count(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "MAX_VALUES", 2000)
    rows = [{"file": name, "label_0": "a", "label_1": "b"} for name in PICTURES]
    rows[0] |= {f"label_{number}": "a" for number in range(1000)}
    code, words = failure(run(PICTURES | {"m.jsonl": "\n".join(map(json.dumps, rows)).encode()}))
    assert code == "too_many_labels"
    assert "found more, in 1000 label columns" in words


def test_matrix_is_refused_before_it_is_made() -> None:
    sets = [[str(300 * row + name) for name in range(300)] for row in range(1000)]
    with pytest.raises(TooManyLabels, match="1000 images x 300000 classes"):
        labels.of_name_sets("label", sets)


def test_child_of_two_that_fit(run: Run, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(manifest([["a", "b"], ["a"]]))
    monkeypatch.setattr(labels, "MAX_CELLS", 12 * 3)
    base = BaseDataset("ds_parent", store.folder)
    more = {f"more/{name}": draw(100 + place) for place, name in enumerate(PICTURES)}
    rows = [{"file": name, "label": ["b", "c"] if place % 2 else ["c"]} for place, name in enumerate(more)]
    upload = more | {"m.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    code, words = failure(run(upload, into=FolderStore(tmp_path / "child"), base=base))
    assert code == "too_many_labels"
    assert "24 images x 3 classes" in words


def class_labels(name: str) -> bytes:
    """A Parquet file of numbers, whose metadata has the names."""
    label = {"_type": "ClassLabel", "names": ["a", name]}
    features = json.dumps({"info": {"features": {"label": label}}})
    table = pa.table({"image": list(PICTURES.values()), "label": [0, 1] * 6})
    return parquet(table.replace_schema_metadata({"huggingface": features}))


# Where names come from; folders have bytes to spare, since no file system has longer names.
SOURCES: dict[str, Callable[[str], bytes | dict[str, bytes]]] = {
    "folders": lambda name: {f"{folder}/{file}": data for folder in ("a", name) for file, data in PICTURES.items()},
    "csv": lambda name: PICTURES | {
        "m.csv": b"file,label\n" + "".join(
            f"{file},{name if place % 2 else 'a'}\n" for place, file in enumerate(PICTURES)
        ).encode()
    },
    "jsonl": lambda name: manifest(["a", name]),
    "jsonl with sets": lambda name: manifest(["a", ["b", name]]),
    "a label column": lambda name: manifest(["a", "b"], (f"label_{name[6:]}",)),
    "parquet": lambda name: parquet({"image": list(PICTURES.values()), "label": ["a", name] * 6}),
    "parquet with sets": lambda name: parquet({"image": list(PICTURES.values()), "label": [["a"], ["b", name]] * 6}),
    "parquet with a class label": class_labels,
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_length_wherever_a_name_comes_from(run: Run, tmp_path: Path, source: str) -> None:
    made = SOURCES[source]
    assert run(made(LONGEST)).state == "ready"
    code, words = failure(run(made(LONGEST + "n"), into=FolderStore(tmp_path / "refused")))
    assert code == "label_too_long"
    assert "found one of 1001 that starts with" in words


def test_length_of_a_name_that_a_child_gives(run: Run, store: FolderStore, tmp_path: Path) -> None:
    run(manifest(["a", "b"]))
    two = load_index(store.folder).ids_at(slice(0, 2))  # type: ignore[arg-type]
    for name, is_good in ((LONGEST, True), (LONGEST + "n", False)):
        base = BaseDataset("ds_parent", store.folder, (), dict.fromkeys(two, name))
        result = run(None, into=FolderStore(tmp_path / str(len(name))), base=base)
        assert (result.state == "ready") is is_good
    assert failure(result)[0] == "label_too_long"
