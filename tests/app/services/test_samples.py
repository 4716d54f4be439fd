"""Samples as the API shows them, from datasets that the worker has stored."""

import pyarrow.parquet as pq
import pytest

from app.db.models import Dataset
from app.errors import NotFound
from app.services import paging, samples
from tests import factories
from worker.data import index_file
from worker.data.ingest import IngestRequest, ingest
from worker.ingestion import StoredDataset

pytestmark = pytest.mark.server
PICTURES = {f"{number}.png": factories.png((30 * number, 90, 200), seed=number) for number in range(6)}


@pytest.fixture
def stored(storage, tmp_path):
    def make(files, task=None):
        (tmp_path / "a.zip").write_bytes(factories.pack(files))
        (tmp_path / "scratch").mkdir()
        request = IngestRequest(
            archive=tmp_path / "a.zip", filename="a.zip", dataset_id="ds_1", scratch=tmp_path / "scratch", task=task
        )
        result = ingest(request, StoredDataset(storage, "datasets/default/ds_1"), lambda *_: None)
        assert result.failure is None, result.failure
        return Dataset(id="ds_1", project_id="default", classes=result.classes, digest=result.digest)

    return make


def page(storage, dataset, limit=100, after=None, split=None, label=None):
    return samples.page(storage, dataset, limit, after, split=split, label=label)


def manifest(header, *lines):
    return {**PICTURES, "labels.csv": "\n".join([header, *lines]).encode()}


def test_class_folders(stored, storage):
    dataset = stored(factories.pictures(5))
    rows, more = page(storage, dataset)
    assert (len(rows), more) == (15, False)
    assert all(row["path"].split("/")[-2] == row["label"] and row["labels"] is None for row in rows)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {(row["width"], row["height"]) for row in rows} == {(32, 32)}
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == 15
    pages = [page(storage, dataset, 4, after)[0] for after in (None, ids[3], ids[7], ids[11])]
    assert [row["id"] for rows in pages for row in rows] == ids
    greens, _ = page(storage, dataset, label="green")
    assert [row["id"] for row in greens] == [row["id"] for row in rows if row["label"] == "green"]
    assert len(greens) == 5
    assert page(storage, dataset, label="mauve") == ([], False)
    with pytest.raises(NotFound):
        page(storage, dataset, after="nothing")


def test_unlabelled(stored, storage):
    dataset = stored(PICTURES)
    rows, _ = page(storage, dataset)
    assert len(rows) == 6
    assert {(row["label"], row["labels"]) for row in rows} == {(None, None)}
    assert page(storage, dataset, label="red") == ([], False)


def test_numbers(stored, storage):
    dataset = stored(manifest("file,label", *(f"{number}.png,{number / 4}" for number in range(6))), "regression")
    rows, _ = page(storage, dataset)
    assert {row["path"]: row["label"] for row in rows} == {f"{number}.png": number / 4 for number in range(6)}
    assert page(storage, dataset, label="red") == ([], False)


def test_several_names(stored, storage):
    names = ["cat", "dog", "cat|dog", "cat", "dog", "cat|dog"]
    lines = [f"{number}.png,{label}" for number, label in enumerate(names)]
    dataset = stored(manifest("file,label", *lines), "multi_label")
    rows, _ = page(storage, dataset)
    assert {row["path"]: "|".join(row["label"]) for row in rows} == {f"{n}.png": label for n, label in enumerate(names)}
    cats, _ = page(storage, dataset, label="cat")
    assert sorted(row["path"] for row in cats) == ["0.png", "2.png", "3.png", "5.png"]
    ids = {row["path"]: row["id"] for row in rows}
    places = [row["path"] for row in rows]
    for path in places:
        after, _ = page(storage, dataset, after=ids[path], label="cat")
        wanted = [later for later in places[places.index(path) + 1 :] if later in {row["path"] for row in cats}]
        assert [row["path"] for row in after] == wanted
    assert page(storage, dataset, label="cow") == ([], False)


def test_several_columns(stored, storage):
    lines = [f"{number}.png,{'ab'[number % 2]},{'xy'[number // 3]}" for number in range(6)]
    dataset = stored(manifest("file,kind,place", *lines), "multi_task")
    rows, _ = page(storage, dataset)
    found = {row["path"]: (row["label"], row["labels"]) for row in rows}
    assert found["4.png"] == ("a", {"kind": "a", "place": "y"})
    firsts, _ = page(storage, dataset, label="b")
    assert sorted(row["path"] for row in firsts) == ["1.png", "3.png", "5.png"]


def test_pages_go_over_the_groups_of_an_index(stored, storage, monkeypatch):
    monkeypatch.setattr(index_file, "_ROWS", 4)
    dataset = stored(factories.pictures(5))
    with pq.ParquetFile(storage.fetch("datasets/default/ds_1/index.parquet")) as file:
        assert file.num_row_groups > 1
    rows, _ = page(storage, dataset)
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == 15
    for limit in (1, 4, 15):
        for place, after in enumerate((None, *ids)):
            found, more = page(storage, dataset, limit, after)
            assert [row["id"] for row in found] == ids[place : place + limit]
            assert more == (place + limit < 15)
    tests, _ = page(storage, dataset, split="test", label="green")
    assert tests == [row for row in rows if (row["split"], row["label"]) == ("test", "green")]
    some, more = page(storage, dataset, 2, label="green")
    assert ([row["id"] for row in some], more) == ([row["id"] for row in rows if row["label"] == "green"][:2], True)


def test_a_page_of_large_samples_is_short(stored, storage, monkeypatch):
    dataset = stored(factories.pictures(2))
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    ids, after, more = [], None, True
    while more:
        (row,), more = page(storage, dataset, after=after)
        after = row["id"]
        ids.append(after)
    assert len(set(ids)) == 6
