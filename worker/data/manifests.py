"""Manifests: CSV, TSV or JSON lines with a file and a label, or several label columns; an optional split.

References are names of members of the same upload and nothing else: relative to the manifest, or to the root of the
archive. Labels are taken byte for byte. Several manifests (train.csv, test.csv) add up; one that is named like a split,
or lies in a folder that is, gives its rows that split.
"""

import csv
import io
import json
import posixpath
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from worker.data.formats import Assigned, given_split, names_splits, split_number
from worker.data.kinds import extension
from worker.data.labelling import (
    LABEL_COLUMNS,
    LABEL_PREFIXES,
    MAX_LEVELS,
    SPLIT_COLUMN,
    Labelled,
    detect_task,
    is_deeper,
    to_columns,
)
from worker.data.members import unsafe
from worker.data.names import Names
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.splits import NONE
from worker.data.spool import Spool, Stored

FILE_COLUMNS = ("file", "file_name")
TABLES = frozenset({"csv", "tsv"})
# No row is longer; one of a hundred megabytes of brackets would become gigabytes of lists.
MAX_LINE_CHARS = 2**20
_UNNAMED = -1


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest file, with the columns that count."""

    path: str
    stored: Stored
    file_column: str
    label_columns: tuple[str, ...]
    other_columns: tuple[str, ...]


def find(
    sidecars: Sequence[tuple[str, Stored]], spool: Spool, task: str | None, is_required: bool, problems: Problems
) -> list[Manifest]:
    """The manifests among the upload's text files: those with a file column and a label column.

    Raises:
        Rejected: one is required and none is there; or they disagree about the labels.
    """
    seen, manifests = [], []
    for path, stored in sidecars:
        names = header(path, stored, spool)
        file_column = next((name for name in FILE_COLUMNS if name in names), None)
        label_columns = _label_columns(names, file_column, task)
        if file_column and label_columns:
            others = tuple(name for name in names if name not in {file_column, SPLIT_COLUMN, *label_columns})
            manifests.append(Manifest(path, stored, file_column, label_columns, others))
        seen.append(f"{path}: {', '.join(names) or 'nothing readable'}")
    if is_required and not manifests:
        raise problems.reject("manifest_columns", found="; ".join(seen) or "no CSV, TSV or JSONL file")
    for manifest in manifests[1:]:
        if manifest.label_columns != manifests[0].label_columns:
            raise problems.reject(
                "manifest_columns",
                manifest.path,
                found=f"{manifest.label_columns} here and {manifests[0].label_columns} in {manifests[0].path}",
            )
    return manifests


def read(
    manifests: list[Manifest], records: Records, rows: range, spool: Spool, task: str | None, problems: Problems
) -> Assigned:
    """Samples of the manifests' rows. Images that no row names are left out, with a warning."""
    images = Names()
    for number, one in zip(rows, records.each(rows), strict=True):
        images.first(one.path, number)
    found = Labelled(problems)
    # Where each image is among what was found.
    place_of = array("q", [_UNNAMED]) * len(rows)
    # `train/metadata.csv` and `test/metadata.csv`, as the library datasets lays out a folder of images.
    by_folder = names_splits({_folder(manifest) for manifest in manifests})
    for manifest in manifests:
        for name in manifest.other_columns:
            problems.add("column_ignored", manifest.path, found=name)
        fallback = split_number(PurePosixPath(manifest.path).stem)
        if fallback == NONE and by_folder:
            fallback = split_number(_folder(manifest))
        for line, row in _read_rows(manifest, spool, problems):
            where = f"{manifest.path}:{line}"
            image = _resolve(manifest, row, images, where, problems)
            values = [row.get(name) for name in manifest.label_columns]
            if image is None:
                continue
            if (place := place_of[image - rows.start]) != _UNNAMED:
                _note_repetition(where, found.values[place], values, problems)
                continue
            place_of[image - rows.start] = len(found.rows)
            found.add(image, given_split(row.get(SPLIT_COLUMN), fallback, where, problems), values)
    for number, place in zip(rows, place_of, strict=True):
        if place == _UNNAMED:
            problems.add("not_in_manifest", records.path(number))
    return _assign(manifests[0].label_columns, found, records, task, problems)


def _assign(
    label_columns: tuple[str, ...], found: Labelled, records: Records, task: str | None, problems: Problems
) -> Assigned:
    task = detect_task(label_columns, found.values, task)
    columns, keep = to_columns(label_columns, task, found.rows, found.values, records, problems, {})
    rows_N = np.array(found.rows, dtype=np.int64)[keep]
    given_N = np.array(found.splits, dtype=np.int8)[keep]
    return Assigned(task, rows_N, tuple(column.take(keep) for column in columns), given_N)


def _label_columns(header: Sequence[str], file_column: str | None, task: str | None) -> tuple[str, ...]:
    rest = [name for name in header if name not in {file_column, SPLIT_COLUMN}]
    if task == "multi_task":
        prefixed = tuple(name for name in rest if name.startswith(LABEL_PREFIXES))
        return prefixed or tuple(rest)
    for name in LABEL_COLUMNS:
        if name in rest:
            return (name,)
    return tuple(name for name in rest if name.startswith(LABEL_PREFIXES))


def header(path: str, stored: Stored, spool: Spool) -> list[str]:
    """Names of the columns; none where the first line says none."""
    head = spool.read(stored.offset, min(stored.length, 65536))
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    first = next((line for line in lines if line.strip()), "")
    if extension(path) in TABLES:
        return [name for row in csv.reader([first], delimiter=_delimiter(path, first)) for name in row]
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return []
    return list(row) if isinstance(row, dict) else []


def _delimiter(path: str, header: str) -> str:
    if extension(path) == "tsv":
        return "\t"
    return ";" if ";" in header and "," not in header else ","


class _SpoolText(io.RawIOBase):
    """One member of the spool as a readable file."""

    def __init__(self, spool: Spool, stored: Stored) -> None:
        self._spool, self._offset, self._left = spool, stored.offset, stored.length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._spool.read(self._offset, min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._offset += len(data)
        self._left -= len(data)
        return len(data)


def _read_rows(manifest: Manifest, spool: Spool, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each row; a row that cannot be read makes the manifest broken."""
    raw = io.BufferedReader(_SpoolText(spool, manifest.stored))
    lines = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="" if extension(manifest.path) in TABLES else None)
    try:
        if extension(manifest.path) in TABLES:
            yield from _read_csv(manifest, _Lines(lines))
        else:
            yield from _read_jsonl(_Lines(lines))
    except (ValueError, RecursionError, csv.Error) as error:
        raise problems.reject("manifest_broken", manifest.path, found=str(error)) from error


class _Lines:
    """Lines of bounded length.

    Raises:
        ValueError: one is longer, or no UTF-8.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE_CHARS + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE_CHARS:
            raise ValueError(f"a line of more than {MAX_LINE_CHARS} characters")
        return line


def _read_csv(manifest: Manifest, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    header = next(line for line in lines if line.strip())
    delimiter = _delimiter(manifest.path, header)
    names = next(csv.reader([header], delimiter=delimiter))
    rows = csv.reader(lines, delimiter=delimiter)
    for row in rows:
        if row:
            if len(row) != len(names):
                raise ValueError(f"line {rows.line_num + 1} with {len(row)} instead of {len(names)} fields")
            yield rows.line_num + 1, dict(zip(names, row, strict=True))


def _read_jsonl(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if is_deeper(row):
                raise ValueError(f"line {number} with lists and objects nested deeper than {MAX_LEVELS} levels")
            if not isinstance(row, dict):
                raise ValueError(f"line {number} with a {type(row).__name__} instead of an object")
            yield number, row


def _folder(manifest: Manifest) -> str:
    return PurePosixPath(manifest.path).parent.name


def _resolve(manifest: Manifest, row: dict[str, Any], images: Names, where: str, problems: Problems) -> int | None:
    """The record that a row names, or None with a problem."""
    reference = row.get(manifest.file_column)
    if not isinstance(reference, str) or not reference:
        problems.add("reference_outside", where, found=repr(reference)[:200])
        return None
    name = reference.replace("\\", "/")
    folder = posixpath.dirname(manifest.path)
    for candidate in (posixpath.normpath(posixpath.join(folder, name)), posixpath.normpath(name)):
        if unsafe(candidate) is None and (image := images.get(candidate)) is not None:
            return image
    problems.add("reference_outside", where, found=repr(reference)[:200])
    return None


def _note_repetition(where: str, first: list[Any], values: list[Any], problems: Problems) -> None:
    if first == values:
        problems.add("duplicate_name", where)
    else:
        problems.add("conflicting_labels", where, found=f"{first} first and {values} here; the first is kept")
