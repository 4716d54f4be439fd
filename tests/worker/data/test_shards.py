"""The stored form, opened by those who will open it: Hugging Face `datasets`, DuckDB, pandas."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from worker.data import row_groups, shards
from worker.data.ingest import IngestResult
from worker.data.samples import iter_images, load_index

from .conftest import FolderStore, draw, folders

Run = Callable[..., IngestResult]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def files() -> dict[str, bytes]:
    return folders(10, ("cat", "dog", "owl"))


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several row groups and shards from a few pictures."""
    monkeypatch.setattr(row_groups, "ROW_GROUP_BYTES", 12_000)
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    return


def data_files(store: FolderStore) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in store.files:
        if name.startswith("data/"):
            found.setdefault(name.split("/")[1].split("-")[0], []).append(str(store.folder / name))
    return found


@pytest.mark.usefixtures("small_groups")
def test_hugging_face_datasets_opens_the_shards(
    run: Run, store: FolderStore, files: dict[str, bytes], tmp_path: Path
) -> None:
    import datasets

    result = run(files)
    loaded = datasets.load_dataset("parquet", data_files=data_files(store), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == result.splits
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    assert loaded["train"].features["label"] == datasets.ClassLabel(names=["cat", "dog", "owl"])
    for name, split in loaded.items():
        names = split.features["label"].names
        raw = split.cast_column("image", datasets.Image(decode=False))
        for row, encoded in zip(split, raw, strict=True):
            path = encoded["image"]["path"]
            assert encoded["image"]["bytes"] == files[path]
            assert names[row["label"]] == path.split("/")[0]
            assert row["split"] == name
            expected = np.asarray(Image.open(io.BytesIO(files[path])))
            assert (np.asarray(row["image"]) == expected).all()


def test_hugging_face_datasets_opens_other_tasks(run: Run, store: FolderStore, tmp_path: Path) -> None:
    import datasets

    pictures = {f"{number}.png": draw(number) for number in range(12)}
    numbers = "file,label\n" + "".join(f"{number}.png,{number}.5\n" for number in range(12))
    sets = "\n".join(json.dumps({"file": f"{n}.png", "label": ["a", "b"][: n % 3]}) for n in range(12))
    several = "file,label_x,label_y\n" + "".join(f"{n}.png,{n % 2},{'pqr'[n % 3]}\n" for n in range(12))
    uploads = {
        "regression": {**pictures, "m.csv": numbers.encode()},
        "multi_label": {**pictures, "m.jsonl": sets.encode()},
        "multi_task": {**pictures, "m.csv": several.encode()},
        "unlabelled": pictures,
    }
    rows = {}
    for name, upload in uploads.items():
        into = FolderStore(tmp_path / name)
        task = None if name == "unlabelled" else name
        assert run(upload, into=into, task=task).state == "ready"
        loaded = datasets.load_dataset("parquet", data_files=data_files(into), cache_dir=str(tmp_path / "cache" / name))
        every = datasets.concatenate_datasets(list(loaded.values())).cast_column("image", datasets.Image(decode=False))
        rows[name] = {row["image"]["path"]: row for row in every}
    assert rows["regression"]["7.png"]["label"] == 7.5
    assert rows["multi_label"]["8.png"]["label"] == [0, 1]
    assert (rows["multi_task"]["7.png"]["label_x"], rows["multi_task"]["7.png"]["label_y"]) == (1, 1)
    assert rows["unlabelled"]["7.png"]["label"] is None


@pytest.mark.usefixtures("small_groups")
def test_duckdb_and_pandas_open_the_shards(run: Run, store: FolderStore, files: dict[str, bytes]) -> None:
    run(files)
    pattern = str(store.folder / "data" / "*.parquet")
    found = duckdb.sql(f"select label, count(*), count(distinct sha256) from '{pattern}' group by label order by label")
    assert found.fetchall() == [(0, 10, 10), (1, 10, 10), (2, 10, 10)]
    data = duckdb.sql(f"select image.path, image.bytes from '{pattern}'").fetchall()
    assert dict(data) == files
    frame = pd.concat([pd.read_parquet(path) for paths in data_files(store).values() for path in paths])
    assert {row["image"]["path"]: row["image"]["bytes"] for _, row in frame.iterrows()} == files


@pytest.mark.usefixtures("small_groups")
def test_row_groups_and_shards_are_bounded(run: Run, store: FolderStore, files: dict[str, bytes]) -> None:
    run(files)
    assert len([name for name in store.files if name.startswith("data/train-")]) > 1
    for paths in data_files(store).values():
        for path in paths:
            file = pq.ParquetFile(path)
            groups = [file.read_row_group(number).column("image").to_pylist() for number in range(file.num_row_groups)]
            sizes = [sum(len(image["bytes"]) for image in group) for group in groups]
            assert all(size <= 12_000 or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
            assert file.metadata.row_group(0).column(0).compression == "UNCOMPRESSED"


@pytest.mark.usefixtures("small_groups")
def test_the_index_finds_every_image(run: Run, store: FolderStore, files: dict[str, bytes]) -> None:
    result = run(files)
    index = load_index(store.folder)
    assert len(index) == result.num_samples
    paths = index.paths.to_pylist()
    asked: list[str] = []

    def locate(name: str) -> Path:
        asked.append(name)
        return store.folder / name

    rows = np.random.default_rng(0).permutation(len(index))
    found = list(iter_images(index, rows, locate))
    assert [row for row, _ in found] == list(range(len(index)))
    assert all(data == files[paths[row]] for row, data in found)
    assert asked == list(index.files)
    few = index.rows_of("test")[::2]
    assert [(row, files[paths[row]]) for row in few] == list(iter_images(index, few, locate))
    assert list(iter_images(index, np.array([], dtype=np.int64), locate)) == []


def test_the_index_agrees_with_the_shards(run: Run, store: FolderStore, files: dict[str, bytes]) -> None:
    result = run(files)
    index = load_index(store.folder)
    rows = pq.read_table(store.folder / "index.parquet").to_pylist()
    for place, row in enumerate(rows):
        stored = pq.ParquetFile(store.folder / row["file"]).read_row_group(row["row_group"]).slice(row["row"], 1)
        other = stored.to_pylist()[0]
        assert all(row[name] == other[name] for name in ("id", "label", "split", "sha256"))
        assert row["path"] == other["image"]["path"]
        assert row["id"].encode() == index.ids[place]
        assert row["sha256"].encode() == index.sha256[place]
        assert row["label"] == index.label[place]
    description = json.loads((store.folder / "dataset.json").read_text())
    assert description == index.description
    assert description["digest"] == result.digest
    assert (description["id"], description["format_version"], description["task"]) == ("ds_test", 1, "classification")
    assert description["files"] == [name for name in result.files if name.startswith("data/")]


def test_the_digest_is_of_ids_bytes_labels_and_splits(run: Run, store: FolderStore, files: dict[str, bytes]) -> None:
    import hashlib

    result = run(files)
    rows = pq.read_table(store.folder / "index.parquet").to_pylist()
    names = ("cat", "dog", "owl")
    lines = sorted(json.dumps([row["id"], row["sha256"], [names[row["label"]]], row["split"]]) for row in rows)
    assert result.digest == hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    for row in rows:
        assert row["sha256"] == hashlib.sha256(files[row["path"]]).hexdigest()
        assert row["id"] == "s_" + hashlib.sha256(f"{row['path']}\0{row['sha256']}".encode()).hexdigest()[:20]
