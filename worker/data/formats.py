"""What the names in an upload say: class folders, below wrapping folders and a level of splits, or no labels at all."""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

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
# Never handed to the image decoders. Everything else is, whatever its name: the bytes decide.
# fmt: off
NOT_IMAGES = frozenset({
    "7z", "arrow", "avi", "cfg", "conf", "css", "csv", "db", "doc", "docx", "feather", "flac",
    "gz", "h5", "hdf5", "htm", "html", "ini", "ipynb", "js", "json", "jsonl", "log", "mat",
    "md", "mkv", "mov", "mp3", "mp4", "ndjson", "npy", "npz", "ogg", "parquet", "pdf", "pickle",
    "pkl", "ppt", "pptx", "py", "rar", "rst", "sqlite", "svg", "tar", "tgz", "toml", "tsv",
    "txt", "wav", "webm", "xls", "xlsx", "xml", "yaml", "yml", "zip",
})
# fmt: on
MANIFESTS = frozenset({"csv", "tsv", "jsonl", "ndjson"})


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


def extension(path: str) -> str:
    """Lower-case, without the dot."""
    return PurePosixPath(path).suffix[1:].lower()


def split_number(name: str) -> int:
    """TRAIN, VAL or TEST for a name of a split, else NONE."""
    known = SPLIT_NAMES.get(name.strip().lower())
    return NONE if known is None else SPLITS.index(known)


def read_folders(records: Records, rows: range, task: str | None, is_required: bool, problems: Problems) -> Assigned:
    """Class folders, or unlabelled images when nothing lies in a folder (unless folders are required).

    The rule: folders that hold everything are wrapping; folders named like splits, and nothing else, are splits; the
    next level is the class, and
    what lies deeper counts for the class above it, as in torchvision's ImageFolder.

    Raises:
        Rejected: no class folder where one is required, or a task that folders cannot express.
    """
    paths = records.paths(rows)
    folders = [path.split("/")[:-1] for path in paths]
    depth = _num_wrapping([parts for parts in folders if parts])
    inner = [parts[depth:] for parts in folders]
    has_splits = _has_split_level(inner)
    given_N = np.full(len(paths), NONE, dtype=np.int8)
    if has_splits:
        given_N[:] = [split_number(parts[0]) if parts else NONE for parts in inner]
        inner = [parts[1:] for parts in inner]
        depth = _num_wrapping([parts for parts in inner if parts])
        inner = [parts[depth:] for parts in inner]
    if not any(inner):
        if is_required:
            raise problems.reject("format_mismatch", expected="class folders", found="images outside any folder")
        return read_unlabelled(rows, task)
    if task not in {None, "classification"}:
        raise problems.reject("task_mismatch", expected=f"labels for the task {task}", found="class folders")
    return _label_by_folder(rows, paths, inner, given_N, problems)


def read_unlabelled(rows: range, task: str | None) -> Assigned:
    """Every image, without a label."""
    num = len(rows)
    return Assigned(
        task or "classification",
        np.array(rows, dtype=np.int64),
        (labels.unlabelled(num),),
        np.full(num, NONE, dtype=np.int8),
    )


def looks_like_coco(text: bytes) -> bool:
    """Whether a JSON file holds detection annotations."""
    return b'"annotations"' in text and b'"images"' in text


def _label_by_folder(
    rows: range, paths: list[str], inner: list[list[str]], given_N: NDArray[np.int8], problems: Problems
) -> Assigned:
    nested: dict[str, None] = {}
    places, names = [], []
    for place, parts in enumerate(inner):
        if not parts:
            problems.add("no_class", paths[place])
            continue
        if len(parts) > 1:
            nested.setdefault(parts[0])
        places.append(place)
        names.append(parts[0])
    for name in nested:
        problems.add("nested_folders", name, name=name)
    column = labels.of_names("label", names)
    return Assigned("classification", rows.start + np.array(places, dtype=np.int64), (column,), given_N[places])


def _num_wrapping(folders: list[list[str]]) -> int:
    """Leading folders that hold every image, leaving at least one level below."""
    depth = 0
    while folders and all(len(parts) > depth and parts[depth] == folders[0][depth] for parts in folders):
        if not any(len(parts) > depth + 1 for parts in folders):
            break
        depth += 1
    return depth


def _has_split_level(inner: list[list[str]]) -> bool:
    """Whether the first level is made of splits, two at least, one of them train."""
    first = {parts[0] for parts in inner if parts}
    splits = {split_number(name) for name in first}
    return NONE not in splits and len(splits) > 1 and SPLITS.index("train") in splits
