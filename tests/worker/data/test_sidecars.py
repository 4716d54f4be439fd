"""Texts beside the images that nothing is read from: what seems to say labels is refused, all else is listed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from worker.data.ingest import IngestResult

from .conftest import draw, folders

Run = Callable[..., IngestResult]
NAMES = list(folders(6))
COCO = json.dumps({"images": [{"file_name": NAMES[0]}], "annotations": [], "categories": []}).encode()


def lines(header: str, cells: list[str]) -> bytes:
    return "\n".join([header, *(f"{cell},x" for cell in cells)]).encode()


SAYING: dict[str, tuple[str, bytes]] = {
    "columns of other names": ("labels.csv", lines("filename,class", NAMES)),
    "a capital": ("labels.csv", lines("File,Label", NAMES)),
    "a file, and no label": ("labels.csv", lines("file,colour", NAMES)),
    "names without their folder": ("labels.csv", lines("image,label", [name.rpartition("/")[2] for name in NAMES])),
    "names without their ending": ("train.csv", lines("id,label", [name[4:-4] for name in NAMES])),
    "backslashes": ("labels.tsv", lines("filename\tclass", [name.replace("/", "\\") for name in NAMES])),
    "JSON": ("labels.json", json.dumps(dict.fromkeys(NAMES, "x")).encode()),
    "JSON lines whose first is broken": (
        "m.jsonl",
        b"{broken\n" + "\n".join(json.dumps({"file": name, "label": "x"}) for name in NAMES).encode(),
    ),
}


@pytest.mark.parametrize("name", SAYING)
def test_a_text_that_names_the_images_is_not_passed_over(run: Run, name: str) -> None:
    path, content = SAYING[name]
    result = run(folders(6) | {path: content})
    assert result.failure is not None
    assert result.failure[0] == "manifest_columns"
    assert path in result.failure[1]
    assert "send format=folders" in result.problems[-1].fix


@pytest.mark.parametrize("name", SAYING)
def test_folders_that_were_asked_for_are_taken_all_the_same(run: Run, name: str) -> None:
    path, content = SAYING[name]
    result = run(folders(6) | {path: content}, format="folders")
    assert (result.state, len(result.classes)) == ("ready", 2)
    assert [(problem.code, problem.path) for problem in result.problems] == [("text_ignored", path)]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("classes.csv", b"name,colour\ncat,grey\ndog,brown\n"),
        ("dataset_info.json", b'{"name": "animals", "example": "' + NAMES[0].encode() + b'"}'),
        ("empty.csv", b""),
        ("log.jsonl", b'{"epoch": 1}\n{"epoch": 2}\n'),
    ],
)
def test_any_other_text_is_listed(run: Run, path: str, content: bytes) -> None:
    result = run(folders(6) | {path: content})
    assert (result.state, len(result.classes)) == ("ready", 2)
    assert [(problem.code, problem.path) for problem in result.problems] == [("text_ignored", path)]


def test_a_table_beside_a_manifest_is_listed(run: Run) -> None:
    manifest = "\n".join(["file,label", *(f"{name},{'ab'[at % 2]}" for at, name in enumerate(NAMES))]).encode()
    result = run(folders(6) | {"m.csv": manifest, "submission.csv": lines("id,prediction", NAMES)})
    assert [one["name"] for one in result.classes] == ["a", "b"]
    assert [(problem.code, problem.path) for problem in result.problems] == [("text_ignored", "submission.csv")]


@pytest.mark.parametrize("layout", [folders(6), {f"{split}2017/{n}.png": draw(n) for n in range(6) for split in "ab"}])
def test_coco_is_refused_whatever_the_folders_are(run: Run, layout: dict[str, Any]) -> None:
    result = run(layout | {"annotations/instances_train.json": COCO})
    assert result.failure is not None
    assert result.failure[0] == "coco_unsupported"
