"""What is told of a dataset that is ready all the same."""

import io
import json
import tarfile

import pytest
from PIL import Image

from app import texts
from tests.hostile.archives import tar_of
from tests.worker.data.ingesting import Run, codes, flat, stored
from worker.data.ingest import Limits

from .conftest import FolderStore, draw, folders, pack


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
