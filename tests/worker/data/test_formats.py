"""Which level of folders is the class: wrapping folders, splits, folders below."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.data.formats import Assigned, read_folders
from worker.data.problems import Problems, Rejected
from worker.data.records import Records
from worker.data.splits import SPLITS
from worker.data.spool import Stored


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path) as records:
        yield records


def read(records: Records, paths: list[str], is_required: bool = False) -> tuple[Assigned, list[tuple[str, str]]]:
    first = len(records)
    for path in paths:
        records.add(path, Stored(0, 0, bytes(32)))
    problems = Problems()
    assigned = read_folders(records, range(first, len(records)), None, is_required, problems)
    return assigned, [(problem.code, problem.path) for problem in problems]


CASES: dict[str, tuple[dict[str, str | None], list[str]]] = {
    # path -> "class", "split:class", or None for an image that is left out; then the codes of warnings
    "plain": ({"a/1": "a", "b/1": "b"}, []),
    "wrapped": ({"x/a/1": "a", "x/b/1": "b"}, []),
    "wrapped thrice": ({"x/y/z/a/1": "a", "x/y/z/b/1": "b"}, []),
    "one class": ({"a/1": "a", "a/2": "a"}, []),
    "one class, wrapped": ({"x/a/1": "a", "x/a/2": "a"}, []),
    "strays above the classes": (
        {"cover": None, "x/cover": None, "x/a/1": "a", "x/b/1": "b"},
        ["no_class", "no_class"],
    ),
    "folders below": ({"a/1": "a", "a/old/2": "a", "b/1": "b"}, ["nested_folders"]),
    "splits": ({"train/a/1": "train:a", "test/a/2": "test:a", "valid/b/3": "val:b"}, []),
    "splits, wrapped": ({"x/train/a/1": "train:a", "x/test/b/2": "test:b"}, []),
    "splits that wrap": ({"train/imgs/a/1": "train:imgs", "test/a/2": "test:a"}, ["nested_folders"]),
    "only train": ({"train/a/1": "a", "train/b/2": "b"}, []),
    "no train": ({"val/a/1": "val", "test/a/2": "test"}, ["nested_folders", "nested_folders"]),
    "splits without classes": ({"x/train/1": "train:", "x/test/1": "test:"}, []),
    "a train among vehicles": ({"train/1": "train", "car/1": "car", "test/2": "test"}, []),
    "test without classes": ({"train/a/1": "train:a", "train/b/1": "train:b", "test/1": None}, ["no_class"]),
}


@pytest.mark.parametrize("name", CASES)
def test_levels(records: Records, name: str) -> None:
    expected, codes = CASES[name]
    assigned, problems = read(records, list(expected))
    found: dict[str, str | None] = dict.fromkeys(expected)
    for place, row in enumerate(assigned.rows.tolist()):
        given = assigned.given[place]
        prefix = f"{SPLITS[given]}:" if given >= 0 else ""
        found[records.path(row)] = prefix + assigned.columns[0].text(place)
    assert found == expected
    assert [code for code, _ in problems] == codes


def test_nothing_in_folders_is_unlabelled_or_refused(records: Records) -> None:
    assigned, problems = read(records, ["1", "2"])
    assert not assigned.is_labelled
    assert problems == []
    with pytest.raises(Rejected):
        read(records, ["1", "2"], is_required=True)
