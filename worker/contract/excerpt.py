"""A part of a dataset that stands for the whole, for a job whose time does not hold all of its images. Torch-free.

Features are extracted in rounds, each several times as large as what there is. Whenever the time ends, what is known is
an excerpt of all classes and of both sides of the test split, and not the images that happen to be stored first.

Shape legend: N images of the dataset.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.backbones import features
from worker.backbones.features import Extraction
from worker.contract.task import Rows, Task

# Of each class, as far as it has so many to learn from, and beside them of all images: what the first round has.
CLASS_IMAGES, FIRST_IMAGES = 5, 64
# Images of a round, against those of all rounds before it.
GROWTH = 4


@dataclass(frozen=True)
class Excerpt:
    """What there is time for.

    Args:
        pool: rows to learn from.
        scored: rows of the test split.
        num_rows: of `order`, from its beginning, that are in here.
    """

    pool: Rows
    scored: Rows
    num_rows: int

    def of(self, task: Task) -> Task:
        """The task with these rows alone."""
        return replace(
            task,
            pool=self.pool,
            train=np.intersect1d(task.train, self.pool),
            val=np.intersect1d(task.val, self.pool),
            left_out=np.setdiff1d(task.pool, self.pool),
        )


def order(labels_N: NDArray[np.int64], pool: Rows, scored: Rows, seed: int) -> tuple[Rows, int]:
    """Rows in an order whose every beginning, from the returned number on, stands for all of them.

    Classes come in proportion, those of the pool and those of the test split each; but the first few of each class that
    are to be learned from come before all others, since a class without any is none.

    Shape:
        labels_N: [N]
    """
    draws = np.random.default_rng(seed)
    rows, keys = [], []
    for part in (pool, scored):
        for label in np.unique(labels_N[part]):
            members = draws.permutation(part[labels_N[part] == label])
            place = (np.arange(len(members)) + draws.random(len(members))) / len(members)
            if part is pool:
                place[:CLASS_IMAGES] -= 1
            rows.append(members)
            keys.append(place)
    key_N = np.concatenate(keys)
    num_first = min(len(key_N), int((key_N < 0).sum()) + FIRST_IMAGES)
    return np.concatenate(rows)[np.argsort(key_N, kind="stable")], num_first


def chosen(ordered: Rows, num_rows: int, task: Task, scored: Rows) -> Excerpt:
    """The first rows of an order, each side by itself."""
    rows = ordered[:num_rows]
    return Excerpt(np.intersect1d(task.pool, rows), np.intersect1d(scored, rows), num_rows)


def grow(
    ordered: Rows,
    num_first: int,
    extract: Callable[[Rows, bool], Extraction],
    num_missing: Callable[[Rows], int],
    num_fitting: Callable[[float], float],
) -> tuple[int, list[Extraction]]:
    """Extracts what there is time for, round by round.

    Args:
        ordered: as `order` gives them.
        num_first: images of the first round, which is not left.
        extract: features of rows into the cache; and whether it may be left.
        num_missing: how many of some rows are not in the cache.
        num_fitting: how many images the time holds, at so many seconds each.

    Returns:
        how many rows of the order are known, and what it took.
    """
    done, extractions = num_first, [extract(ordered[:num_first], False)]
    while done < len(ordered):
        if not num_missing(ordered[done:]):
            return len(ordered), extractions
        num = sum(one.num_extracted for one in extractions)
        pace = sum(one.seconds for one in extractions if one.num_extracted) / max(1, num)
        size = int(min(GROWTH * done, len(ordered) - done, num_fitting(pace)))
        if size < 1:
            break
        try:
            extractions.append(extract(ordered[done : done + size], True))
        except features.Left:
            break
        done += size
    return done, extractions
