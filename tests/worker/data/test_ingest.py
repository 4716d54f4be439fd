"""Uploads of every kind, through the whole ingestion with real decoding processes."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.hostile.archives import tar_of
from tests.worker.data.ingesting import Run, codes, flat, stored, table
from worker.data.ingest import IngestRequest, ingest
from worker.data.samples import load_index

from .conftest import FolderStore, draw, folders, pack


@pytest.mark.parametrize("prefix", ["", "photos/", "a/b/c/"])
def test_class_folders_below_any_wrapping(run: Run, store: FolderStore, prefix: str) -> None:
    files = folders(10, ("cat", "dog", "owl"), prefix)
    result = run({f"{prefix}readme/": b"", **files})
    assert (result.state, result.failure, result.problems) == ("ready", None, [])
    assert result.classes == [{"name": name, "num_samples": 10} for name in ("cat", "dog", "owl")]
    assert result.splits == {"train": 21, "val": 3, "test": 6}
    found = stored(store)
    assert {path: data for path, (_, _, data) in found.items()} == files
    assert all(label == path.split("/")[-2] for path, (label, _, _) in found.items())


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid", "TEST")]
)
def test_given_splits_are_kept(run: Run, store: FolderStore, names: tuple[str, ...]) -> None:
    files = {
        f"set/{split}/{label}/{number}.png": draw(100 * place + number + 10 * (label == "dog"))
        for place, split in enumerate(names)
        for label in ("cat", "dog")
        for number in range(3)
    }
    result = run(files)
    assert result.problems == []
    assert result.splits == {"train": 6, "val": 6, "test": 6}
    for path, (label, split, _) in stored(store).items():
        _, given_split, given_label, _ = path.split("/")
        assert label == given_label
        assert split == ("train", "val", "test")[names.index(given_split)]


def test_a_missing_split_is_taken_from_train_and_said(run: Run, store: FolderStore) -> None:
    files = folders(10, prefix="train/") | {
        f"test/{name}/{n}.png": draw(5000 + n + len(name) * 100) for name in ("cat", "dog", "zebra") for n in range(2)
    }
    files |= {f"train/zebra/{n}.png": draw(9000 + n) for n in range(10)}
    result = run(files)
    assert result.state == "ready"
    assert [problem.code for problem in result.problems if problem.code.startswith("split")] == ["split_missing"]
    assert result.splits == {"train": 27, "val": 3, "test": 6}
    assert all(split == "test" for path, (_, split, _) in stored(store).items() if path.startswith("test/"))


def test_a_class_that_only_the_test_split_has_is_named(run: Run) -> None:
    result = run({**folders(5, prefix="train/"), **folders(5, ("cat", "dog", "emu"), prefix="test/")})
    assert result.state == "ready"
    assert [problem.message for problem in result.problems if problem.code == "class_untaught"] == [
        "expected images of every class outside the test split; found none of 'emu', so nothing can learn it"
    ]


def test_copies_of_one_picture_alone_cannot_be_tested(run: Run) -> None:
    files = {f"{name}/{number}.png": draw(place) for place, name in enumerate(("cat", "dog")) for number in range(3)}
    result = run(files)
    assert result.splits == {"train": 6, "val": 0, "test": 0}
    assert "no_test_items" in codes(result)


def test_splits_of_images_without_classes_are_left_out_of_account_and_said(run: Run) -> None:
    files = {
        f"{split}/{n}.png": draw(100 * place + n) for place, split in enumerate(("train", "test")) for n in range(4)
    }
    result = run(files)
    assert (result.classes, result.splits) == ([], {"train": 8, "val": 0, "test": 0})
    assert [problem.message for problem in result.problems if problem.code == "splits_unused"] == [
        "expected unlabelled images without splits; found 8 in folders or rows of train, val or test, which are left "
        "out of account: all unlabelled images are in train"
    ]


def test_a_lone_train_folder_is_wrapping(run: Run) -> None:
    result = run(folders(10, prefix="train/"))
    assert result.problems == []
    assert result.splits == {"train": 14, "val": 2, "test": 4}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tars(run: Run, store: FolderStore, mode: str, style: int) -> None:
    files = folders(5, ("cat", "long-" + "x" * 200))
    result = run(tar_of(files, mode, style))
    assert (result.state, result.problems) == ("ready", [])
    assert {path: data for path, (_, _, data) in stored(store).items()} == files


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "semicolon", "bom"])
def test_manifests(run: Run, store: FolderStore, kind: str) -> None:
    labels = ("ein Hund", " caf\u00e9,'x' ")
    rows = [{"file": f"images/{number}.png", "label": labels[number % 2]} for number in range(12)]
    content = {
        "csv": table(rows),
        "tsv": table(rows, "\t"),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "semicolon": table(rows, ";").replace(b",", b"_"),
        "bom": b"\xef\xbb\xbf" + table(rows),
    }[kind]
    name = {"semicolon": "set/labels.csv", "bom": "set/labels.csv"}.get(kind, f"set/labels.{kind}")
    result = run({f"set/{path}": data for path, data in flat().items()} | {name: content})
    assert (result.failure, result.problems) == (None, [])
    expected = {label.replace(",", "_") if kind == "semicolon" else label for label in labels}
    assert {one["name"] for one in result.classes} == expected
    assert stored(store)["set/images/0.png"][0] == "ein Hund"


def test_manifest_with_splits(run: Run, store: FolderStore) -> None:
    given = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    rows = [{"file": f"images/{n}.png", "label": n % 2, "split": given[n]} for n in range(12)]
    result = run(flat() | {"m.csv": table(rows)})
    assert result.splits == {"train": 6, "val": 3, "test": 3}
    assert all(stored(store)[row["file"]][1] == row["split"] for row in rows)


def test_two_manifests_named_like_splits(run: Run, store: FolderStore) -> None:
    rows = [{"file_name": f"images/{n}.png", "label": "ab"[n % 2]} for n in range(12)]
    result = run(flat() | {"train.csv": table(rows[:8]), "test.csv": table(rows[8:])})
    assert result.splits["test"] == 4
    assert {path for path, (_, split, _) in stored(store).items() if split == "test"} == {
        f"images/{n}.png" for n in range(8, 12)
    }


def test_manifests_in_folders_named_like_splits(run: Run, store: FolderStore) -> None:
    rows = [{"file_name": f"{n}.png", "label": "ab"[n % 2]} for n in range(12)]
    files = {f"set/{'train' if n < 8 else 'test'}/{n}.png": draw(n) for n in range(12)}
    result = run(files | {"set/train/metadata.csv": table(rows[:8]), "set/test/metadata.csv": table(rows[8:])})
    assert {one["name"] for one in result.classes} == {"a", "b"}
    assert {path for path, (_, split, _) in stored(store).items() if split == "test"} == {
        f"set/test/{n}.png" for n in range(8, 12)
    }


def test_several_label_columns_are_multi_task(run: Run, store: FolderStore) -> None:
    rows = [
        {"file": f"images/{n}.png", "label_colour": "rb"[n % 2], "label_size": "" if n == 0 else "sml"[n % 3]}
        for n in range(12)
    ]
    result = run(flat() | {"m.csv": table(rows)})
    assert (result.state, result.task) == ("ready", "multi_task")
    index = load_index(store.folder)
    assert [(column.name, column.names) for column in index.columns] == [
        ("label_colour", ("b", "r")),
        ("label_size", ("l", "m", "s")),
    ]
    row = index.paths.to_pylist().index("images/0.png")
    assert [column.text(row) for column in index.columns] == ["r", ""]


def test_lists_of_labels_are_multi_label(run: Run, store: FolderStore) -> None:
    sets = [["a"], ["a", "b"], [], ["c", "b"], ["c"], ["a", "b", "c"]]
    lines = [json.dumps({"file": f"images/{n}.png", "label": sets[n % 6]}) for n in range(12)]
    result = run(flat() | {"m.jsonl": "\n".join(lines).encode()})
    assert (result.state, result.task) == ("ready", "multi_label")
    assert result.classes == [{"name": name, "num_samples": num} for name, num in (("a", 6), ("b", 6), ("c", 6))]
    assert {path: label for path, (label, _, _) in stored(store).items()}["images/3.png"] == "b|c"


def test_regression(run: Run, store: FolderStore) -> None:
    rows = [{"file": f"images/{n}.png", "label": n * 0.1} for n in range(11)] + [
        {"file": "images/11.png", "label": "tall"}
    ]
    result = run(flat() | {"m.csv": table(rows)}, task="regression")
    assert (result.state, result.num_samples, result.classes) == ("ready", 11, [])
    assert codes(result) == {"label_invalid"}
    assert stored(store)["images/3.png"][0] == repr(3 * 0.1)


def test_unlabelled_images(run: Run, store: FolderStore) -> None:
    assert run(flat() | {"0.png": draw(77)}, format="unlabelled").splits == {"train": 13, "val": 0, "test": 0}
    index = load_index(store.folder)
    assert index.classes == ()
    assert (index.label == -1).all()


def test_images_outside_any_folder_are_unlabelled(run: Run) -> None:
    result = run({path.replace("images/", ""): data for path, data in flat().items()})
    assert (result.state, result.classes, result.num_samples) == ("ready", [], 12)


def test_stored_shards_can_be_uploaded_again(run: Run, store: FolderStore, tmp_path: Path) -> None:
    first = run(folders(10, ("cat", "dog", "owl")))
    again = FolderStore(tmp_path / "again")
    shards = {path: (store.folder / path).read_bytes() for path in store.files if path.startswith("data/")}
    second = run(shards, into=again)
    assert second.problems == []
    assert (second.digest, second.splits, second.classes) == (first.digest, first.splits, first.classes)
    assert stored(again) == stored(store)


def test_one_parquet_file(run: Run, store: FolderStore, tmp_path: Path) -> None:
    run(folders(10))
    again = FolderStore(tmp_path / "again")
    result = run((store.folder / "data/train-00000.parquet").read_bytes(), into=again, filename="train-00000.parquet")
    assert (result.state, result.num_samples) == ("ready", 14)
    assert "split_missing" in codes(result)


def test_the_seed_and_nothing_else_makes_the_split(run: Run, tmp_path: Path) -> None:
    files = folders(20)
    results = []
    for place, (upload, seed) in enumerate([(files, 0), (dict(reversed(files.items())), 0), (files, 1)]):
        into = FolderStore(tmp_path / str(place))
        results.append(
            (run(upload, into=into, seed=seed).digest, {path: split for path, (_, split, _) in stored(into).items()})
        )
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert results[0][1] != results[2][1]


def test_ids_are_of_name_and_bytes(run: Run, store: FolderStore) -> None:
    run(folders(5))
    index = load_index(store.folder)
    assert len(set(index.ids.tolist())) == 10
    assert all(one.startswith(b"s_") and len(one) == 22 for one in index.ids.tolist())


def test_progress_rises_to_the_end(tmp_path: Path, store: FolderStore) -> None:
    archive = tmp_path / "upload"
    archive.write_bytes(pack(folders(5)))
    (tmp_path / "scratch").mkdir()
    seen: list[tuple[float, str]] = []
    request = IngestRequest(archive=archive, filename="x.zip", dataset_id="ds_1", scratch=tmp_path / "scratch")
    ingest(request, store, lambda fraction, stage: seen.append((fraction, stage)))
    assert [stage for _, stage in seen] == ["reading", "grouping", "storing"]
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)


def test_a_full_disk_leaves_no_scratch_files(tmp_path: Path, store: FolderStore) -> None:
    class FullStore:
        def put(self, relative_name: str, local_path: Path) -> None:
            raise OSError(28, "No space left on device")

    archive = tmp_path / "upload"
    archive.write_bytes(pack(folders(5)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    request = IngestRequest(archive=archive, filename="x.zip", dataset_id="ds_1", scratch=scratch)
    with pytest.raises(OSError, match="No space left"):
        ingest(request, FullStore(), lambda *_: None)
    assert list(scratch.iterdir()) == []


def test_the_index_measures_the_upright_image(run: Run, store: FolderStore) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        **folders(5),
        "cat/turned.jpg": draw(900, "JPEG", (300, 200), exif=exif),
        "cat/turned.png": draw(901, "PNG", (30, 20), exif=exif),
    }
    run(files)
    rows = pq.read_table(store.folder / "index.parquet").to_pylist()
    sizes = {row["path"]: (row["width"], row["height"]) for row in rows}
    assert sizes["cat/turned.jpg"] == (200, 300)
    assert sizes["cat/turned.png"] == (20, 30)
    assert sizes["cat/0.png"] == (48, 40)
