"""Uploads that are refused: each leaves nothing behind, as the fixture checks. Attacks are in tests/hostile."""

import json
from typing import Any

import pytest

from tests.hostile import archives
from tests.hostile.archives import tar_of
from tests.worker.data.ingesting import Run, flat, table
from worker.data.findings import PROBLEMS
from worker.data.ingest import Limits

from .conftest import draw, folders, pack

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


@pytest.mark.parametrize("spelled", ["b\\ud800", "b\\u0000"])
def test_a_label_that_nothing_can_store_is_refused(run: Run, spelled: str) -> None:
    names = sorted(flat())
    rows = [f'{{"file": "{name}", "label": "{spelled if place % 2 else "a"}"}}' for place, name in enumerate(names)]
    result = run(flat() | {"m.jsonl": "\n".join(rows).encode()})
    assert result.failure is not None
    assert result.failure[0] == "label_unusable"
    json.dumps([problem.message for problem in result.problems]).encode()


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
