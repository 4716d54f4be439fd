"""A child dataset: the samples of its base, less those removed, some with other labels, and the new ones.

Old samples keep their ids, splits and measurements; their bytes are copied, not decoded again.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.data import labels
from worker.data.formats import Assigned
from worker.data.labelling import SEPARATOR, number_of
from worker.data.labels import Column
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.samples import iter_images, load_index
from worker.data.spool import Spool


@dataclass(frozen=True, slots=True)
class BaseDataset:
    """What a child dataset starts from.

    Args:
        dataset_id: of the base.
        folder: its stored form, as local files.
        remove: ids of samples to leave out.
        relabel: id to new label; several names are separated by a bar for multi-label data.
    """

    dataset_id: str
    folder: Path
    remove: tuple[str, ...] = ()
    relabel: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Old:
    """The base's samples as records: those kept, and those removed, which new copies of them still have to follow."""

    assigned: Assigned
    removed_rows: NDArray[np.int64]
    removed_split: NDArray[np.int8]


def read(base: BaseDataset, records: Records, spool: Spool, problems: Problems) -> Old:
    """Copies the base's samples into the spool.

    Raises:
        Rejected: an id is not the base's, or a new label does not fit.
    """
    index = load_index(base.folder)
    asked = {*base.remove, *base.relabel}
    rows = np.flatnonzero(np.isin(index.ids, np.array([one.encode(errors="replace") for one in asked], "S22")))
    place = {index.ids[row].decode(): row for row in rows.tolist()}
    unknown = sorted(asked - place.keys())
    if unknown:
        raise problems.reject(
            "unknown_sample", found=", ".join(unknown[:5]) + (" and more" if len(unknown) > 5 else "")
        )
    for row, data in iter_images(index, np.arange(len(index)), lambda name: base.folder / name):
        number = records.add(index.paths[row].as_py(), spool.append((data,)))
        records.set_good(number, int(index.width[row]), int(index.height[row]), int(index.phash[row]))
    columns = _relabel(index.columns, {place[one]: label for one, label in base.relabel.items()}, problems)
    removed = np.zeros(len(index), dtype=bool)
    removed[[place[one] for one in base.remove]] = True
    kept_N = np.flatnonzero(~removed)
    kept = Assigned(
        index.description["task"], kept_N, tuple(column.take(kept_N) for column in columns), index.split[kept_N]
    )
    return Old(kept.without_empty(), np.flatnonzero(removed), index.split[removed])


def merge(old: Assigned, new: Assigned, problems: Problems) -> Assigned:
    """The base's samples, then the new ones.

    Raises:
        Rejected: the two are of different tasks, or have different label columns.
    """
    described = [[(column.name, column.kind, bool(column.names)) for column in one.columns] for one in (old, new)]
    if old.task != new.task or described[0] != described[1]:
        raise problems.reject("base_mismatch", expected=_describe(old), found=_describe(new))
    return Assigned(
        old.task,
        np.concatenate([old.rows, new.rows]),
        tuple(labels.join(one, other) for one, other in zip(old.columns, new.columns, strict=True)),
        np.concatenate([old.given, new.given]),
    )


def _describe(assigned: Assigned) -> str:
    columns = ", ".join(
        column.name if column.names or column.kind == "number" else "none" for column in assigned.columns
    )
    return f"samples for {assigned.task} with the labels {columns}"


def _relabel(columns: tuple[Column, ...], changes: dict[int, str], problems: Problems) -> tuple[Column, ...]:
    if not changes:
        return columns
    if len(columns) > 1:
        raise problems.reject("relabel_invalid", expected="one label column", found=f"{len(columns)} of them")
    column, rows = columns[0], np.fromiter(changes, dtype=np.int64)
    match column.kind:
        case "number":
            numbers = [number_of(text) for text in changes.values()]
            odd = [text for text, number in zip(changes.values(), numbers, strict=True) if number is None]
            if odd:
                raise problems.reject("relabel_invalid", expected="numbers", found=repr(odd[0])[:80])
            fresh = Column(column.name, "number", (), np.array(numbers, dtype=np.float64))
        case "class":
            fresh = labels.of_names(column.name, list(changes.values()))
        case "classes":
            fresh = labels.of_name_sets(column.name, [text.split(SEPARATOR) for text in changes.values()])
    # Behind the old ones first, where new names get their numbers; then each into its place.
    joined = labels.join(column, fresh)
    source = np.arange(len(column.values))
    source[rows] = len(column.values) + np.arange(len(rows))
    return (joined.take(source),)
