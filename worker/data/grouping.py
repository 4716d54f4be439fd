"""From samples with labels to their groups and splits: copies stay together, the base's samples where they are.

How a split is chosen is in `splits`; how copies are found is in `duplicates`.

Shape legend: N samples, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from worker.data import base, duplicates, labels, splits
from worker.data.checks import note_copies, note_leaks, note_untaught, note_untested, note_unused_splits
from worker.data.formats import Assigned
from worker.data.labels import Column
from worker.data.problems import Problems
from worker.data.records import Records
from worker.data.splits import NONE, TRAIN, Digests


def split(
    seed: int, assigned: Assigned, old: base.Old | None, records: Records, first_new: int, problems: Problems
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Groups and splits of all samples; findings about them are added to the problems.

    Args:
        seed: the dataset's.
        assigned: samples with their labels and the splits that they came with.
        old: what the base has, of a child.
        records: the images.
        first_new: number of the first record that is not the base's.
        problems: gets the findings.

    Shape:
        result: [N] groups, numbered from 0 without gaps; [N] indices into `splits.SPLITS`
    """
    digests = _digests(records, assigned.rows)
    group_N, given_N = _known(assigned, old, records, digests, first_new)
    is_given = assigned.given != NONE
    if not assigned.is_labelled:
        split_N = np.zeros(len(group_N), dtype=np.int8)
        note_unused_splits(is_given[assigned.rows >= first_new], problems)
    else:
        stratum_N = _strata(assigned.columns[0])
        split_N = _fill_splits(seed, digests, group_N, stratum_N, given_N, problems, is_child=old is not None)
        note_untested(split_N, problems)
    note_copies(records, assigned, group_N, split_N, first_new, problems)
    if is_given.any():
        note_leaks(records, assigned.rows, group_N, split_N, problems)
        note_untaught(assigned.columns, split_N, problems)
    return group_N, split_N


def _known(
    assigned: Assigned, old: base.Old | None, records: Records, digests: Digests, first_new: int
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Groups, numbered without gaps, and the splits that are known before any is chosen.

    Copies of what the base has follow its split, of what was removed from it as well. Else what was removed counts no
    more: it belongs to no class, and must not fill the share of one.
    """
    num, rows_N, leading_N, given_N = len(assigned.rows), assigned.rows, digests.leading, assigned.given
    if old is not None:
        rows_N = np.concatenate([rows_N, old.removed_rows])
        leading_N = np.concatenate([leading_N, records.leading(old.removed_rows)])
    group_N = duplicates.group(leading_N, records.phash[rows_N])
    if old is not None:
        given_N = np.concatenate([given_N, old.removed_split])
        is_old = rows_N < first_new
        given_N[~is_old & np.isin(group_N, group_N[is_old])] = NONE
        given_N = splits.follow(group_N, given_N)
    _, compact_N = np.unique(group_N[:num], return_inverse=True)
    return compact_N.astype(np.int64), given_N[:num]


def _digests(records: Records, rows_N: NDArray[np.int64]) -> Digests:
    return Digests(records.leading(rows_N), lambda place: records.at(int(rows_N[place])).sha256)


def _fill_splits(
    seed: int,
    digests: Digests,
    group_N: NDArray[np.int64],
    stratum_N: NDArray[np.int64],
    given_N: NDArray[np.int8],
    problems: Problems,
    *,
    is_child: bool,
) -> NDArray[np.int8]:
    """Given splits as they are; what they leave open, by share. Those of an upload without train say nothing."""
    if not is_child and not (given_N == TRAIN).any():
        return splits.choose(seed, digests, group_N, stratum_N, np.full_like(given_N, NONE))
    # What taught a model of the base never tests one of the child.
    if is_child or (given_N == NONE).any():
        return splits.choose(seed, digests, group_N, stratum_N, given_N)
    split_N, filled = splits.complete(seed, digests, group_N, stratum_N, given_N)
    for name in filled:
        problems.add("split_missing", missing=name)
    return split_N


def _strata(column: Column) -> NDArray[np.int64]:
    """What the splits are balanced over: the class, the rarest of several, or a bin of the number."""
    match column.kind:
        case "class":
            return np.asarray(column.values, dtype=np.int64)
        case "classes":
            rarity_C = np.where(column.count > 0, column.count, np.iinfo(np.int64).max)
            rarest_N = np.where(column.values, rarity_C, np.iinfo(np.int64).max).argmin(axis=1)
            return np.where(column.values.any(axis=1), rarest_N, labels.MISSING)
        case "number":
            return splits.number_strata(column.values)
