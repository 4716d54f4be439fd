"""What the names in an upload say: class folders, below wrapping folders and a level of splits, or no labels at all."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.data import labels
from worker.data.labels import Column
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.splits import NONE, SPLITS

FORMATS = ("auto", "folders", "manifest", "parquet", "unlabelled")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Assigned:
    """Which images the upload takes for samples, with labels and given splits. N is their number.

    Args:
        task: that the labels belong to.
        rows: rows of the records.
        columns: labels; for unlabelled data one column without names.
        given: splits that the upload chose, or NONE.
    """

    task: str
    rows: NDArray[np.int64]
    columns: tuple[Column, ...]
    given: NDArray[np.int8]

    @property
    def is_labelled(self) -> bool:
        """Whether there is any label at all."""
        return any(column.kind == "number" or column.names for column in self.columns)

    def take(self, places: NDArray[np.int64]) -> "Assigned":
        """Some of the samples."""
        columns = tuple(column.take(places) for column in self.columns)
        return Assigned(self.task, self.rows[places], columns, self.given[places])

    def without_empty(self) -> "Assigned":
        """Drops classes that no sample has."""
        return replace(self, columns=tuple(column.without_empty() for column in self.columns))


def split_number(name: str) -> int:
    """TRAIN, VAL or TEST for a name of a split, else NONE."""
    known = SPLIT_NAMES.get(name.strip().lower())
    return NONE if known is None else SPLITS.index(known)


def given_split(value: Any, fallback: int, where: str, problems: Problems) -> int:
    """TRAIN, VAL or TEST for what a table says of one sample, and the fallback where it says nothing."""
    if value is None or value == "":
        return fallback
    split = split_number(str(value))
    if split == NONE:
        problems.add("split_invalid", where, found=repr(value)[:80])
    return split


def names_splits(names: set[str]) -> bool:
    """Whether these are names of splits, two of them at least, one train."""
    splits = {split_number(name) for name in names}
    return NONE not in splits and len(splits) > 1 and SPLITS.index("train") in splits


def read_folders(records: Records, rows: range, task: str | None, is_required: bool, problems: Problems) -> Assigned:
    """Class folders, or unlabelled images when nothing lies in a folder (unless folders are required).

    The rule: folders that hold everything are wrapping; folders named like splits, and nothing else, are splits; the
    next level is the class, and what lies deeper counts for the class above it, as in torchvision's ImageFolder.

    Args:
        records: the images.
        rows: those of this upload. Below, N is their number and F that of different folders.
        task: that was asked for.
        is_required: whether images outside folders are refused.
        problems: gets the findings.

    Raises:
        Rejected: no class folder where one is required, or a task that folders cannot express.
    """
    numbers: dict[str, int] = {}
    folders = (one.path.rpartition("/")[0] for one in records.each(rows))
    folder_N = np.fromiter((numbers.setdefault(folder, len(numbers)) for folder in folders), np.int64, len(rows))
    inner_F = _without_wrapping([tuple(name.split("/")) if name else () for name in numbers])
    given_F = np.full(len(inner_F), NONE, dtype=np.int8)
    if names_splits({parts[0] for parts in inner_F if parts}):
        given_F[:] = [split_number(parts[0]) if parts else NONE for parts in inner_F]
        # Splits without classes below them leave nothing: no label.
        inner_F = _without_wrapping([parts[1:] for parts in inner_F])
    if not any(inner_F):
        if is_required:
            raise problems.reject("format_mismatch", expected="class folders", found="images outside any folder")
        return replace(read_unlabelled(rows, task), given=given_F[folder_N])
    if task not in {None, "classification"}:
        raise problems.reject("task_mismatch", expected=f"labels for the task {task}", found="class folders")
    column_F = labels.of_names("label", [parts[0] if parts else None for parts in inner_F])
    for name in dict.fromkeys(parts[0] for parts in inner_F if len(parts) > 1):
        problems.add("nested_folders", name, name=name)
    column = column_F.take(folder_N)
    for row in np.flatnonzero(column.is_missing).tolist():
        problems.add("no_class", records.path(rows[row]))
    places = np.flatnonzero(~column.is_missing)
    return Assigned("classification", rows.start + places, (column.take(places),), given_F[folder_N[places]])


def read_unlabelled(rows: range, task: str | None) -> Assigned:
    """Every image, without a label."""
    num = len(rows)
    return Assigned(
        task or "classification",
        np.arange(rows.start, rows.stop, dtype=np.int64),
        (labels.unlabelled(num),),
        np.full(num, NONE, dtype=np.int8),
    )


def _without_wrapping(folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Cuts the leading folders that hold every image, leaving at least one level below; images outside stay outside."""
    inside = [parts for parts in folders if parts]
    depth = 0
    while any(len(parts) > depth + 1 for parts in inside) and len({parts[: depth + 1] for parts in inside}) == 1:
        depth += 1
    return [parts[depth:] for parts in folders]
