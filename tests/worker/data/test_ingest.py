"""Uploads of every kind, through the whole ingestion with real decoding processes."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app import texts
from tests.hostile import archives
from tests.hostile.archives import tar_of
from worker.data.findings import PROBLEMS
from worker.data.ingest import IngestRequest, IngestResult, Limits, ingest
from worker.data.samples import iter_images, load_index

from .conftest import FolderStore, draw, folders, pack

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


# Formats


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


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def flat(num: int = 12) -> dict[str, bytes]:
    return {f"images/{number}.png": draw(number) for number in range(num)}


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


# Refusals: every one leaves nothing behind, as the fixture checks. Attacks are in tests/hostile.

JPG = draw(1, "JPEG")


REFUSED: dict[str, tuple[str, Any]] = {
    "text": ("not_an_archive", b"hello"),
    "nothing": ("not_an_archive", b""),
    "one image": ("not_an_archive", JPG),
    "rar": ("not_an_archive", b"Rar!\x1a\x07\x00" + b"\0" * 100),
    "empty zip": ("empty_archive", pack({})),
    "a name that begins with NUL": ("unsafe_path", pack({"?abc.png": draw(1)}).replace(b"?abc", b"\0abc")),
    "folders only": ("empty_archive", pack({"a/": b"", "b/": b""})),
    "empty tar": ("empty_archive", tar_of({})),
    "not images": ("nothing_decodable", {"a/1.jpg": b"nope" * 99, "b/1.jpg": b"nope"}),
    "no image at all": ("nothing_decodable", {"readme.txt": b"hello"}),
    "one class": ("one_class", {f"a/{n}.png": draw(n) for n in range(3)}),
    "one image in a class": ("class_too_small", {"a/1.png": draw(1), "a/2.png": draw(2), "b/1.png": draw(3)}),
    "one good image in a class": ("class_too_small", {**folders(3), "b/1.png": draw(99), "b/2.png": b"nope"}),
    "all images of a class bad": ("class_too_small", {**folders(3), "b/1.png": b"nope", "b/2.png": b"nope"}),
    "manifest to a file that is not there": ("reference_outside", flat() | {"m.csv": b"file,label\nimages/99.png,a\n"}),
    "manifest without file names": (
        "reference_outside",
        flat() | {"m.jsonl": b'{"file": "", "label": "a"}\n{"file": 3, "label": "b"}'},
    ),
    "broken CSV": ("manifest_broken", flat() | {"m.csv": b"file,label\nimages/1.png\n"}),
    "broken JSON": ("manifest_broken", flat() | {"m.jsonl": b'{"file": "images/1.png", "label": "a"}\n{"file": \n'}),
    "manifest in UTF-16": ("manifest_broken", flat() | {"m.csv": b"file,label\nimages/1.png,caf\xe9\n"}),
    "a tar with a damaged header": ("not_an_archive", tar_of(folders(4)).replace(b"cat/2.png\0", b"cat/2.pnG\0")),
}


@pytest.mark.parametrize("name", [*REFUSED, *archives.REFUSED])
def test_refused(run: Run, name: str) -> None:
    if name in REFUSED:
        code, upload = REFUSED[name]
    else:
        code, make = archives.REFUSED[name]
        upload = make()
    result = run(upload)
    assert result.state == "invalid"
    assert result.failure is not None
    assert result.failure[0] == code
    assert "expected" in result.failure[1]
    assert "found" in result.failure[1]
    assert result.digest is None
    assert all(problem.severity == PROBLEMS[problem.code].severity for problem in result.problems)


@pytest.mark.parametrize(
    ("wanted", "task", "upload", "code"),
    [
        ("manifest", None, folders(3), "manifest_columns"),
        ("manifest", None, {**folders(3), "m.csv": b"name,class\na,b\n"}, "manifest_columns"),
        ("parquet", None, folders(3), "format_mismatch"),
        ("folders", None, {"1.png": draw(1), "2.png": draw(2)}, "format_mismatch"),
        ("auto", "regression", folders(3), "task_mismatch"),
        ("auto", "multi_label", folders(3), "task_mismatch"),
    ],
)
def test_refused_for_what_was_asked(
    run: Run, wanted: str, task: str | None, upload: dict[str, bytes], code: str
) -> None:
    result = run(upload, format=wanted, task=task)
    assert result.failure is not None
    assert result.failure[0] == code


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_entries=5),
        Limits(max_total_bytes=5000),
    ],
)
@pytest.mark.parametrize("mode", ["zip", "w", "w:gz"])
def test_limits_on_the_archive(run: Run, limits: Limits, mode: str) -> None:
    upload = pack(folders(4)) if mode == "zip" else tar_of(folders(4), mode)
    result = run(upload, limits=limits)
    assert result.failure is not None
    assert result.failure[0] == "bomb"


def test_every_unsafe_member_is_listed(run: Run) -> None:
    result = run({"../a.jpg": JPG, "/b.jpg": JPG, "ok/c.jpg": JPG, "../d.jpg": JPG})
    assert [problem.path for problem in result.problems] == ["../a.jpg", "/b.jpg", "../d.jpg"]
    assert result.failure is not None
    assert result.failure[1].endswith("(2 more errors)")


# Warnings: the dataset stays ready


def test_bad_files_cost_only_themselves(run: Run) -> None:
    bad = {
        "cat/text.jpg": b"hello",
        "cat/half.jpg": draw(50, "JPEG", (200, 200))[:2000],
        "cat/empty.png": b"",
        "dog/notes.txt": b"about dogs",
        "dog/strip.png": draw(51, "PNG", (1000, 2)),
        "cover.png": draw(52),
    }
    result = run({**folders(3), **bad})
    assert (result.state, result.num_samples) == ("ready", 6)
    found = {problem.path: problem.code for problem in result.problems if problem.code != "small_class"}
    assert found == {
        "cat/text.jpg": "image_unreadable",
        "cat/half.jpg": "image_truncated",
        "cat/empty.png": "image_unreadable",
        "dog/notes.txt": "not_an_image",
        "dog/strip.png": "image_unsupported",
        "cover.png": "no_class",
    }


def test_limits_on_one_file(run: Run) -> None:
    files = {**folders(3), "cat/big.bmp": draw(7, "BMP", (300, 300)), "cat/wide.png": draw(8, "PNG", (500, 400))}
    result = run(files, limits=Limits(max_entry_bytes=200_000, max_pixels=100_000))
    found = {problem.path: problem.code for problem in result.problems if problem.code != "small_class"}
    assert (result.state, found) == ("ready", {"cat/big.bmp": "entry_too_large", "cat/wide.png": "image_too_large"})


def test_a_damaged_member_costs_only_itself(run: Run) -> None:
    data = bytearray(pack(folders(4)))
    data[data.find(b"cat/1.png") + 200] ^= 255
    result = run(bytes(data))
    assert result.state == "ready"
    assert [(problem.code, problem.path) for problem in result.problems if problem.code != "small_class"] == [
        ("entry_unreadable", "cat/1.png")
    ]


def test_other_compression_methods_are_not_unpacked(run: Run) -> None:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in folders(5).items():
            archive.writestr(name, data, zipfile.ZIP_LZMA if name == "cat/0.png" else None)
    result = run(out.getvalue())
    assert [(problem.code, problem.path) for problem in result.problems if problem.code != "small_class"] == [
        ("entry_unreadable", "cat/0.png")
    ]


def test_what_systems_leave_behind_is_passed_over(run: Run) -> None:
    junk = {
        "__MACOSX/cat/._0.png": b"x",
        ".DS_Store": b"x",
        "cat/Thumbs.db": b"x",
        "cat/._hidden.png": b"x",
        "dog/desktop.ini": b"x",
    }
    result = run({**folders(5), **junk})
    assert (result.state, result.problems) == ("ready", [])


def test_copies_share_a_split_and_are_named(run: Run, store: FolderStore) -> None:
    files = folders(10)
    files["dog/copy.png"] = files["dog/0.png"]
    near = Image.open(io.BytesIO(files["cat/0.png"]))
    out = io.BytesIO()
    near.save(out, "JPEG", quality=95)
    files["cat/near.jpg"] = out.getvalue()
    files["dog/other.png"] = files["cat/5.png"]
    result = run(files)
    found = [(problem.code, problem.path) for problem in result.problems]
    assert sorted(found) == [
        ("conflicting_labels", "dog/other.png"),
        ("duplicate", "cat/near.jpg"),
        ("duplicate", "dog/copy.png"),
        ("duplicate", "dog/other.png"),
    ]
    samples = stored(store)
    for one, other in (("dog/copy.png", "dog/0.png"), ("cat/near.jpg", "cat/0.png"), ("dog/other.png", "cat/5.png")):
        assert samples[one][1] == samples[other][1]


def test_copies_across_given_splits_are_a_leak(run: Run) -> None:
    files = {
        f"{split}/{path}": draw(n + 100 * place)
        for place, split in enumerate(("train", "val", "test"))
        for n, path in enumerate(folders(3))
    }
    files["test/cat/leak.png"] = files["train/cat/0.png"]
    result = run(files)
    assert [problem.path for problem in result.problems if problem.code == "split_leak"] == ["test/cat/leak.png"]
    # Both findings say the same of the pair.
    (told,) = [problem.message for problem in result.problems if problem.code == "duplicate"]
    assert told.endswith("both stay, in test and train")


def test_names_that_repeat_or_differ_in_case(run: Run) -> None:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in folders(5).items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/0.png", draw(700))
        archive.writestr("cat/1.PNG", draw(701))
    result = run(out.getvalue())
    assert [(problem.code, problem.path) for problem in result.problems] == [
        ("duplicate_name", "cat/0.png"),
        ("case_collision", "cat/1.PNG"),
    ]
    assert result.num_samples == 11


def test_labels_are_the_folders_names_byte_for_byte(run: Run) -> None:
    names = ("Stra\u00dfe ", "\u732b", "a'b\"c", "e\u0301", "\u00e9")
    result = run(folders(5, names))
    assert {one["name"] for one in result.classes} == set(names)


def test_names_without_an_encoding_are_read_as_utf_8_or_else_as_cp437(run: Run) -> None:
    upload = pack(folders(5, ("aaaa", "bbbb")))
    result = run(upload.replace(b"aaaa", "\u732bx".encode()).replace(b"bbbb", b"caf\x82"))
    assert {one["name"] for one in result.classes} == {"\u732bx", "caf\u00e9"}
    assert codes(result) == {"name_encoding"}
    assert len(result.problems) == 5


def test_odd_bytes_in_the_names_of_a_tar(run: Run) -> None:
    upload = tar_of(
        {name.replace("dog", "caf\udc82"): data for name, data in folders(5).items()}, style=tarfile.GNU_FORMAT
    )
    result = run(upload)
    assert {one["name"] for one in result.classes} == {"cat", "caf\u00e9"}
    assert codes(result) == {"name_encoding"}


def test_manifest_findings(run: Run) -> None:
    lines = ["file,label,split,note"]
    lines += [f"images/{n}.png,{'ab'[n % 2]},{'trian' if n == 3 else ''},x" for n in range(10)]
    lines += ["images/0.png,b,,x", "images/1.png,b,,x", "images/10.png,,,x"]
    result = run(flat() | {"m.csv": "\n".join(lines).encode()})
    assert result.state == "ready"
    assert [(problem.code, problem.path) for problem in result.problems] == [
        ("column_ignored", "m.csv"),
        ("split_invalid", "m.csv:5"),
        ("conflicting_labels", "m.csv:12"),
        ("duplicate_name", "m.csv:13"),
        ("not_in_manifest", "images/11.png"),
        ("label_missing", "images/10.png"),
    ]


def test_folders_below_a_class_count_for_it(run: Run) -> None:
    result = run({**folders(5), "cat/2019/1.png": draw(800), "cat/2020/2.png": draw(801)})
    assert result.classes[0] == {"name": "cat", "num_samples": 7}
    assert [(problem.code, problem.path) for problem in result.problems] == [("nested_folders", "cat")]


def test_small_classes_and_classes_of_one_name(run: Run) -> None:
    result = run({**folders(5, ("cat", "Cat")), **folders(4, ("owl",))})
    assert {(problem.code, problem.path) for problem in result.problems if problem.code != "duplicate"} >= {
        ("small_class", "")
    }
    assert ("case_collision", "cat") in {(problem.code, problem.path) for problem in result.problems}


# The rest


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


@pytest.mark.parametrize("spelled", ["b\\ud800", "b\\u0000"])
def test_a_label_that_nothing_can_store_is_refused(run: Run, spelled: str) -> None:
    names = sorted(flat())
    rows = [f'{{"file": "{name}", "label": "{spelled if place % 2 else "a"}"}}' for place, name in enumerate(names)]
    result = run(flat() | {"m.jsonl": "\n".join(rows).encode()})
    assert result.failure is not None
    assert result.failure[0] == "label_unusable"
    json.dumps([problem.message for problem in result.problems]).encode()


HALF, NUL = "\\ud800", "\\x00"
# Columns beside the file with their values in two kinds of rows, and what is told of them: (finding, path, message).
UNSTORABLE: dict[str, tuple[dict[str, tuple[str, str]], str, str, str]] = {
    "another column": ({"label": ("a", "b"), "\ud800\0": ("1", "1")}, "column_ignored", "m.jsonl", HALF + NUL),
    "two labels": ({"label": ("\ud800a", "\ud800A")}, "case_collision", HALF + "a", "A"),
    "no label column": ({"lab\ud800": ("a", "b")}, "manifest_columns", "", "lab" + HALF),
    "a label column": ({"label_\ud800": ("a", "b"), "label_b": ("c", "d")}, "label_unusable", "", HALF),
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_text_that_nothing_can_store_is_told_as_it_is_spelled(run: Run, what: str) -> None:
    columns, code, path, told = UNSTORABLE[what]
    rows = [
        {"file": name} | {column: values[place % 2] for column, values in columns.items()}
        for place, name in enumerate(flat())
    ]
    result = run(flat() | {"m.jsonl": "\n".join(map(json.dumps, rows)).encode()}, format="manifest")
    assert result.state == ("ready" if what == "another column" else "invalid")
    (found,) = [one for one in result.problems if one.code == code]
    assert found.path == path
    assert told in found.message
    assert all(map(texts.is_storable, [*(result.failure or ()), *(one.path + one.message for one in result.problems)]))


def test_hidden_names_are_left_out_with_a_finding_each(run: Run) -> None:
    names = [*(f"{label}/{number}.png" for label in "ab" for number in range(6)), *(f".c/{n}.png" for n in range(6))]
    result = run({name: draw(number) for number, name in enumerate(names)} | {"a/.d.png": draw(99)})
    assert result.state == "ready"
    assert result.num_samples == 12
    hidden = [problem.path for problem in result.problems if problem.code == "hidden_ignored"]
    assert sorted(hidden) == [".c", "a/.d.png"]


@pytest.mark.parametrize("label", ["9" * 310, "-" + "9" * 4300, "1e999", "NaN", '"inf"', '"red"', "[1]"])
def test_a_label_that_is_no_number_costs_its_row(run: Run, label: str) -> None:
    rows = [f'{{"file": "{name}", "label": {place or label}}}' for place, name in enumerate(flat())]
    result = run(flat() | {"m.jsonl": "\n".join(rows).encode()}, task="regression")
    assert (result.state, result.num_samples) == ("ready", 11)
    assert [problem.path for problem in result.problems if problem.code == "label_invalid"] == ["images/0.png"]


@pytest.mark.parametrize("label", ['{"a": 1}', '["a", ["b"]]', '[{"a": 1}, "b"]', "[" * 99 + "]" * 99])
def test_a_label_that_is_no_set_of_names_costs_its_row(run: Run, label: str) -> None:
    given = [label, *['["a"]', '["a", "b"]'] * 6]
    rows = [f'{{"file": "{name}", "label": {one}}}' for name, one in zip(flat(), given, strict=False)]
    result = run(flat() | {"m.jsonl": "\n".join(rows).encode()}, task="multi_label")
    assert (result.state, result.num_samples) == ("ready", 11)
    assert [one["name"] for one in result.classes] == ["a", "b"]
    assert [problem.path for problem in result.problems if problem.code == "label_invalid"] == ["images/0.png"]


@pytest.mark.parametrize("column", ["label", "file", "split", "other"])
@pytest.mark.parametrize("depth", [101, 900, 960])
def test_json_that_can_just_be_read_ends_nothing(run: Run, column: str, depth: int) -> None:
    """A few calls further down it could no longer be written or shown."""
    row = {"file": "images/0.png", "label": "a", "split": "train", "other": 1} | {column: "deep"}
    line = json.dumps(row).replace('"deep"', "[" * depth + "]" * depth)
    good = json.dumps({"file": "images/1.png", "label": "a"})
    result = run({"images/0.png": draw(0), "images/1.png": draw(1), "m.jsonl": f"{good}\n{line}\n".encode()})
    assert result.failure is not None
    assert result.failure[0] == "manifest_broken"


def test_labels_of_another_task_are_named(run: Run) -> None:
    rows = [{"file": name, "label": "red"} for name in flat()]
    result = run(flat() | {"m.csv": table(rows)}, task="regression")
    assert result.failure is not None
    assert result.failure[0] == "labels_do_not_fit"
    assert "'red'" in result.failure[1]
