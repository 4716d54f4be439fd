"""Findings about the samples together: classes, copies, contradicting labels, splits that share a picture."""

import numpy as np
from numpy.typing import NDArray

from app import texts
from worker.data.formats import Assigned
from worker.data.labels import Column
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.splits import SPLITS, TEST

MIN_GOOD = 2
SMALL_CLASS = 5
# Every answer about the dataset, and every model of it, has all names. ImageNet-21k has 21,841 of them, and Google
# Landmarks 81,313.
MAX_NAMES, MAX_NAME_CHARS, MAX_NAMES_CHARS = 100_000, 1000, 2**22


def check_samples(assigned: Assigned, good_N: NDArray[np.bool_], num_files: int, problems: Problems) -> None:
    """Errors for data that nothing can be learnt from, warnings for small classes.

    Args:
        assigned: all samples, bad ones included: a class whose files are all bad has to be named.
        good_N: which of them decoded.
        num_files: in the upload, for the message.
        problems: gets the findings.
    """
    if not good_N.any():
        problems.add("nothing_decodable", num=num_files)
        return
    for column in assigned.columns:
        if column.kind != "number" and (column.names or len(assigned.columns) > 1):
            _check_column(column, good_N, problems)


def check_class_names(columns: tuple[Column, ...], problems: Problems) -> None:
    """Looks at every name of a class or label column, wherever it came from.

    Errors are one that neither UTF-8 nor a database can hold (JSON can spell it), one that is too long, and too many of
    them. Warns of classes that differ in case only, which elsewhere would have been one folder.
    """
    _check_number([name for column in columns for name in (column.name, *column.names)], problems)
    for column in columns:
        for name in (column.name, *column.names):
            if not texts.is_storable(name):
                problems.add("label_unusable", found=ascii(name))
            if len(name) > MAX_NAME_CHARS:
                found = f"one of {len(name)} that starts with {name[:80]!r}"
                problems.add("label_too_long", limit=MAX_NAME_CHARS, found=found)
        seen: dict[str, str] = {}
        for name in column.names:
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                problems.add("case_collision", name, found=repr(other))


def note_untested(split_N: NDArray[np.int8], problems: Problems) -> None:
    """Warns of labelled data without a test split: every class has one distinct picture, or all are given elsewhere."""
    if not (split_N == TEST).any():
        problems.add("no_test_items")


def note_unused_splits(is_given: NDArray[np.bool_], problems: Problems) -> None:
    """Warns of splits that unlabelled images came with: they may have been meant as classes."""
    if is_given.any():
        problems.add("splits_unused", num=int(is_given.sum()))


def note_copies(
    records: Records,
    assigned: Assigned,
    group_N: NDArray[np.int64],
    split_N: NDArray[np.int8],
    first_new: int,
    problems: Problems,
) -> None:
    """Warns of every copy but the first of its group, and of every group with several labels.

    Copies share a split, unless the upload gives them others.

    Pairs that a base dataset already had are its own findings: `first_new` is the first row that is not the base's.
    """
    order = np.argsort(group_N, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group_N[order]) != 0])
    sizes = np.diff(np.r_[starts, len(order)])
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        first, *others = order[start : start + size].tolist()
        copied = records.at(assigned.rows[first])
        label = [column.text(first) for column in assigned.columns]
        for other in others:
            other_row = assigned.rows[other]
            if other_row < first_new:
                continue
            copy = records.at(other_row)
            how = "the same bytes as" if copy.sha256 == copied.sha256 else "nearly the same picture as"
            here, there = (SPLITS[split_N[place]] for place in (other, first))
            where = "one split" if here == there else f"{here} and {there}"
            problems.add("duplicate", copy.path, how=how, other=repr(copied.path), where=where)
            other_label = [column.text(other) for column in assigned.columns]
            if other_label != label:
                problems.add(
                    "conflicting_labels",
                    copy.path,
                    found=f"{', '.join(other_label)!r} here and {', '.join(label)!r} for {copied.path!r}",
                )


def note_leaks(
    records: Records,
    rows_N: NDArray[np.int64],
    group_N: NDArray[np.int64],
    split_N: NDArray[np.int8],
    problems: Problems,
) -> None:
    """Warns of pictures that given splits hold more than once: what is tested on has been trained on."""
    order = np.lexsort((split_N, group_N))
    here, behind = order[:-1], order[1:]
    leaks = (group_N[here] == group_N[behind]) & (split_N[here] != split_N[behind])
    for one, other in zip(here[leaks].tolist(), behind[leaks].tolist(), strict=True):
        found = f"{SPLITS[split_N[one]]} ({records.path(rows_N[one])!r}) and {SPLITS[split_N[other]]}"
        problems.add("split_leak", records.path(rows_N[other]), found=found)


def note_untaught(columns: tuple[Column, ...], split_N: NDArray[np.int8], problems: Problems) -> None:
    """Warns of classes that given splits leave nothing to learn from."""
    taught_N = np.flatnonzero(split_N != SPLITS.index("test"))
    for column in columns:
        if column.kind != "number":
            for name, num in zip(column.names, column.take(taught_N).count.tolist(), strict=True):
                if not num:
                    problems.add("class_untaught", "" if column.name == "label" else column.name, name=name)


def _check_number(names: list[str], problems: Problems) -> None:
    num_chars = sum(map(len, names))
    if len(names) > MAX_NAMES:
        problems.add("too_many_labels", limit=f"{MAX_NAMES} different names of classes", found=f"{len(names)} of them")
    elif num_chars > MAX_NAMES_CHARS:
        limit = f"{MAX_NAMES_CHARS} characters in all names of classes"
        problems.add("too_many_labels", limit=limit, found=f"{num_chars} in {len(names)} names")


def _check_column(column: Column, good_N: NDArray[np.bool_], problems: Problems) -> None:
    where = "" if column.name == "label" else column.name
    if len(column.names) < 2:
        found = f"only {column.names[0]!r}" if column.names else "none"
        problems.add("one_class", where, found=found)
        return
    for name, num in zip(column.names, column.take(np.flatnonzero(good_N)).count.tolist(), strict=True):
        if num < MIN_GOOD:
            problems.add("class_too_small", where, num=num, name=name)
        elif num < SMALL_CLASS:
            problems.add("small_class", where, limit=SMALL_CLASS, num=num, name=name)
