"""Parquet as the library `datasets` and others write it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worker.data.ingest import IngestResult
from worker.data.samples import load_index

from .conftest import FolderStore, draw

Run = Callable[..., IngestResult]
PICTURES = [draw(number) for number in range(12)]


def written(columns: dict[str, list[Any]], features: dict[str, Any]) -> bytes:
    import datasets

    image = {"image": [{"bytes": data, "path": None} for data in PICTURES]}
    out = io.BytesIO()
    datasets.Dataset.from_dict(
        {**image, **columns}, features=datasets.Features({"image": datasets.Image(), **features})
    ).to_parquet(out)
    return out.getvalue()


def table(columns: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_class_labels(run: Run, store: FolderStore) -> None:
    import datasets

    numbers = [2, 0] * 5 + [-1, 0]
    data = written({"label": numbers}, {"label": datasets.ClassLabel(names=["zebra", "unused", "ape"])})
    result = run(data, filename="animals.parquet")
    assert result.classes == [{"name": "zebra", "num_samples": 6}, {"name": "ape", "num_samples": 5}]
    assert [(problem.code, problem.path) for problem in result.problems] == [
        ("label_missing", "animals.parquet/row-00000010")
    ]
    assert load_index(store.folder).paths.to_pylist()[0].startswith("animals.parquet/row-")


def test_text_and_plain_numbers_as_labels(run: Run, tmp_path: Path) -> None:
    for name, values in (("text", ["x", "y"] * 6), ("numbers", [7, 9] * 6)):
        result = run(table({"image": PICTURES, "label": values}), into=FolderStore(tmp_path / name))
        assert [one["name"] for one in result.classes] == [str(value) for value in values[:2]]


def test_several_class_labels_are_multi_task(run: Run) -> None:
    import datasets

    features = {"colour": datasets.ClassLabel(names=["r", "g"]), "size": datasets.ClassLabel(names=["s", "m", "l"])}
    result = run(written({"colour": [0, 1] * 6, "size": [0, 1, 2] * 4}, features))
    assert (result.state, result.task) == ("ready", "multi_task")


def test_lists_of_class_labels_are_multi_label(run: Run) -> None:
    import datasets

    features = {"label": datasets.List(datasets.ClassLabel(names=["a", "b"]))}
    result = run(written({"label": [[0], [0, 1], [1]] * 4}, features))
    assert (result.task, result.classes) == (
        "multi_label",
        [{"name": "a", "num_samples": 8}, {"name": "b", "num_samples": 8}],
    )


def test_numbers_for_regression(run: Run) -> None:
    result = run(table({"image": PICTURES, "label": [0.5 * number for number in range(12)]}), task="regression")
    assert (result.state, result.num_samples) == ("ready", 12)


def test_without_labels(run: Run) -> None:
    result = run(table({"image": PICTURES}))
    assert (result.state, result.classes, result.splits["train"]) == ("ready", [], 12)


def test_what_is_not_used_of_a_table_is_listed(run: Run) -> None:
    splits = ["train"] * 8 + ["test"] * 2 + ["foo", None]
    data = table({"image": [*PICTURES[:11], None], "label": ["a", "b"] * 6, "caption": ["x"] * 12, "split": splits})
    result = run(data, filename="t.parquet")
    assert (result.state, result.num_samples) == ("ready", 11)
    assert [(problem.code, problem.path) for problem in result.problems if problem.code != "split_missing"] == [
        ("column_ignored", "t.parquet"),
        ("split_invalid", "t.parquet:10"),
        ("image_missing", "t.parquet:11"),
    ]


def test_labels_under_another_name_are_listed(run: Run) -> None:
    result = run(table({"image": PICTURES, "target": ["a", "b"] * 6}))
    assert result.classes == []
    (problem,) = result.problems
    assert (problem.code, "found only target," in problem.message) == ("no_label_column", True)


def test_images_beside_a_table_are_listed(run: Run) -> None:
    beside = {f"cat/{n}.png": draw(100 + n) for n in range(3)}
    result = run({"t.parquet": table({"image": PICTURES, "label": ["a", "b"] * 6}), **beside})
    assert result.num_samples == 12
    assert [(problem.code, problem.path) for problem in result.problems] == [
        ("not_in_manifest", path) for path in beside
    ]


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"picture": PICTURES, "label": ["a", "b"] * 6}, "parquet_columns"),
        ({"image": ["a.png"] * 12, "label": ["a", "b"] * 6}, "parquet_columns"),
        ({"image": [{"bytes": None, "path": "/etc/passwd"}] * 2, "label": ["a", "b"]}, "reference_outside"),
        (
            {
                "image": [{"bytes": data, "path": "x"} for data in PICTURES[:3]]
                + [{"bytes": None, "path": "/etc/passwd"}]
            }
            | {"label": ["a", "b", "a", "b"]},
            "reference_outside",
        ),
        ({"image": [{"bytes": data, "path": 7} for data in PICTURES], "label": ["a", "b"] * 6}, "parquet_columns"),
        ({"image": [{"bytes": [1], "path": "x"}] * 2, "label": ["a", "b"]}, "parquet_columns"),
        ({"image": [b"nope"] * 4, "label": ["a", "b"] * 2}, "nothing_decodable"),
    ],
)
def test_refused(run: Run, columns: dict[str, Any], code: str) -> None:
    result = run(table(columns))
    assert result.failure is not None
    assert result.failure[0] == code


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_several_columns_for_a_task_of_one_are_refused_as_in_a_manifest(run: Run, task: str) -> None:
    result = run(table({"image": PICTURES, "label_a": [1, 2] * 6, "label_b": [3, 4] * 6}), task=task)
    assert result.failure is not None
    assert result.failure[0] == "task_mismatch"
    assert "found label_a, label_b" in result.failure[1]


def images(paths: list[str | None]) -> list[dict[str, Any]]:
    return [{"bytes": data, "path": path} for data, path in zip(PICTURES, paths, strict=True)]


def test_paths_are_named_as_those_of_an_archive(run: Run, store: FolderStore) -> None:
    paths = ["./a//b.png", "c/./d.png", "./", None, *(f"e/{number}.png" for number in range(8))]
    run(table({"image": images(paths), "label": ["a", "b"] * 6}), filename="x.parquet")
    assert {"a/b.png", "c/d.png", "x.parquet/row-00000002", "x.parquet/row-00000003"} < {
        *load_index(store.folder).paths.to_pylist()
    }


def test_every_unsafe_path_is_listed(run: Run) -> None:
    bad = ["../a.png", "/b.png", "c/../../d.png", "e\0.png", "x" * 5000]
    result = run(table({"image": images([*bad, *map(str, range(7))]), "label": ["a", "b"] * 6}))
    assert result.failure is not None
    assert result.failure[0] == "unsafe_path"
    told = [problem.path for problem in result.problems if problem.code == "unsafe_path"]
    assert told == [*bad[:3], "e\\x00.png", "x" * 1000]


@pytest.mark.parametrize("filename", ["", "/home/me/x.parquet", "../x.parquet", "C:\\x.parquet", "x\0.parquet"])
def test_what_a_client_calls_its_file_is_no_path(run: Run, store: FolderStore, filename: str) -> None:
    assert run(table({"image": PICTURES, "label": ["a", "b"] * 6}), filename=filename).state == "ready"
    assert sorted(load_index(store.folder).paths.to_pylist()) == [f"row-{number:08d}" for number in range(12)]
