"""From the values of a manifest or Parquet file to label columns.

A missing label is None or an empty text. Names are kept byte for byte; other JSON values are named as JSON writes them.
"""

import json
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.data import labels
from worker.data.labels import Column
from worker.data.problems import Problems
from worker.data.records import Records

LABEL_COLUMNS = ("label", "labels")
LABEL_PREFIXES = ("label_", "label.")
SPLIT_COLUMN = "split"
SEPARATOR = "|"
_EXPECTED = {"regression": "a number", "multi_label": "a list of class names"}
# Labels that are kept once however often they come; numbers that are all different would only fill a table.
_MOST_EQUAL = 2**14
# Of lists and objects in each other, as in the schema of a Parquet file: as deep as JSON is read it can no longer be
# written, compared or shown a few calls further down.
MAX_LEVELS = 100
# In all columns together: a row of JSON that names none of a thousand columns has a value for each of them.
MAX_VALUES = 2**25


class Labelled:
    """What tables say of images: each one's row of the records, its split or NONE, a value for each label column.

    Args:
        problems: gets the finding of more than there may be.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems, self._num_values = problems, 0
        self.rows = array("q")
        self.splits = array("b")
        self.values: list[list[Any]] = []
        self._equal: dict[str, list[Any]] = {}

    def add(self, row: int, split: int, values: list[Any]) -> None:
        """Notes one row of a table; equal labels are kept once.

        Raises:
            Rejected: there are more than MAX_VALUES.
        """
        self._num_values += len(values)
        if self._num_values > MAX_VALUES:
            found = f"more, in {len(values)} label columns"
            raise self._problems.reject("too_many_labels", limit=f"{MAX_VALUES} labels", found=found)
        self.rows.append(row)
        self.splits.append(split)
        key = json.dumps(values)
        if len(self._equal) < _MOST_EQUAL:
            self._equal.setdefault(key, values)
        self.values.append(self._equal.get(key, values))


def detect_task(label_columns: Sequence[str], values: Sequence[Sequence[Any]], task: str | None) -> str:
    """The task that was named, or else the one that the labels have the form of."""
    if task is not None and not (task == "classification" and len(label_columns) > 1):
        return task
    if len(label_columns) > 1:
        return "multi_task"
    return "multi_label" if any(isinstance(row[0], list) for row in values if row) else "classification"


def to_columns(
    label_columns: Sequence[str],
    task: str,
    rows: Sequence[int],
    values: Sequence[Sequence[Any]],
    records: Records,
    problems: Problems,
    names: dict[str, list[str]],
) -> tuple[list[Column], NDArray[np.bool_]]:
    """Label columns of what a manifest or Parquet file says, and which rows have a usable label; others are noted.

    When no row at all has a label, the data is unlabelled, and all rows stay.

    Args:
        label_columns: their names.
        task: says of which kind the labels are.
        rows: of the records, for messages.
        values: of each row, one per column; None or an empty text for a missing label.
        records: the images.
        problems: gets the findings.
        names: order of the classes, for columns that have one.

    Raises:
        Rejected: several columns for a task of one, or no label fits the task.
        TooManyLabels: samples times names are too many.
    """
    if task != "multi_task" and len(label_columns) > 1:
        raise problems.reject(
            "task_mismatch", expected=f"one label column for the task {task}", found=", ".join(label_columns)
        )
    columns: list[Column] = []
    keep, has_label = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    expected = _EXPECTED.get(task, "one class name")
    for number, name in enumerate(label_columns):
        column, bad = _to_column(name, task, [row[number] for row in values], names.get(name))
        for place in bad:
            found = repr(values[place][number])[:80]
            problems.add("label_invalid", records.path(rows[place]), expected=expected, found=found)
        keep[bad] = False
        has_label |= ~column.is_missing
        columns.append(column)
    if len(rows) and not keep.any():
        example = next(repr(value)[:80] for row in values for value in row if value not in (None, ""))
        raise problems.reject("labels_do_not_fit", expected=expected, task=task, found=example)
    if not has_label.any():
        return [labels.unlabelled(len(rows))], keep
    for place in np.flatnonzero(keep & ~has_label).tolist():
        problems.add("label_missing", records.path(rows[place]))
    return columns, keep & has_label


def _to_column(name: str, task: str, values: Sequence[Any], names: Sequence[str] | None) -> tuple[Column, list[int]]:
    """A label column, and the places of values that are no such label."""
    bad: list[int] = []
    if task == "regression":
        numbers = np.full(len(values), np.nan)
        for place, value in enumerate(values):
            number = None if value is None or value == "" else number_of(value)
            if number is not None:
                numbers[place] = number
            elif value is not None and value != "":
                bad.append(place)
        return Column(name, "number", (), numbers), bad
    if task == "multi_label":
        sets = [_name_set(value) for value in values]
        bad += [place for place, several in enumerate(sets) if several is None]
        return labels.of_name_sets(name, [several or [] for several in sets], names), bad
    texts: list[str | None] = []
    for place, value in enumerate(values):
        if not _is_plain(value):
            bad.append(place)
        texts.append(None if value is None or value == "" or not _is_plain(value) else _text(value))
    return labels.of_names(name, texts, names), bad


def is_deeper(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether a value that JSON has given nests more lists and objects than so many."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (levels == 0 or any(is_deeper(one, levels - 1) for one in inner))


def _is_plain(value: Any) -> bool:
    return not isinstance(value, (list, dict))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def number_of(value: Any) -> float | None:
    """A label as a number; None where it is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _name_set(value: Any) -> list[str] | None:
    """The names of one image; None where something else is among them."""
    if value is None or value == "":
        return []
    if isinstance(value, dict):
        return None
    parts = value if isinstance(value, list) else _text(value).split(SEPARATOR)
    return sorted({_text(part) for part in parts}) if all(map(_is_plain, parts)) else None
