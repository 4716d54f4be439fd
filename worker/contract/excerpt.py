"""A part of a dataset that stands for the whole, for a job whose time does not hold all of its images. Torch-free.

Features are extracted in rounds, each several times as large as what there is. Whenever the time ends, what is known is
an excerpt of all classes and of both sides of the test split, copies of a picture together, and not the images that
happen to be stored first.

Shape legend: N images of the dataset, P of one side of the test split, U pictures under a label.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.contract.task import Rows, Task
from worker.solvers.even import whole

# Of each class, as far as it has so many pictures to learn from, and beside them of all images: the first round.
CLASS_IMAGES, FIRST_IMAGES = 5, 64
# And of these the fewest that there is anything from: a head is compared with others, and scored.
LEAST_CLASS_IMAGES, LEAST_SCORED = 2, 16
# Images of a round, against those of all rounds before it.
GROWTH = 4
NO_TIME, STOPPED, RECORDED = (
    "the time holds",
    "the job was asked to stop, and has",
    "the job that is carried out again had",
)


@dataclass(frozen=True)
class Excerpt:
    """What there is time for.

    Args:
        pool: rows to learn from.
        scored: rows of the test split.
        num_pool: that could be learned from, had there been the time.
        num_scored: images of the whole test split.
        why: it is not all of them, for people: what goes before their number.
        source: rows of the source's dataset, where these are not all either.
        num_source: that could be learned from of it.
        has_split: whether what is scored is apart from what is learned from. A dataset that an adaptation is fitted to
            has no test split: those of its images that have a label are scored, too.
    """

    pool: Rows
    scored: Rows
    num_pool: int
    num_scored: int
    why: str = NO_TIME
    source: Rows | None = None
    num_source: int = 0
    has_split: bool = True

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return (len(self.pool), len(self.scored)) == (self.num_pool, self.num_scored) and self.source is None

    @property
    def details(self) -> dict[str, Any]:
        """For the report: how many images were left out, of how many, and why."""
        parts = {"learn": (self.num_pool, self.pool)}
        if self.has_split:
            parts["test"] = self.num_scored, self.scored
        if self.source is not None:
            parts["source"] = self.num_source, self.source
        left_out = {name: number - len(rows) for name, (number, rows) in parts.items()}
        of = {name: number for name, (number, _) in parts.items()}
        return {"images_left_out": {**left_out, "of": of, "why": self.why}}

    def of(self, task: Task) -> Task:
        """The task with these rows alone; what is foretold is foretold for as many test images as are scored."""
        source = task.source
        if source is not None and self.source is not None:
            source = replace(source, pool=self.source)
        return replace(
            task,
            pool=self.pool,
            train=np.intersect1d(task.train, self.pool),
            val=np.intersect1d(task.val, self.pool),
            left_out=np.setdiff1d(task.pool, self.pool),
            source=source,
            scored=self.scored,
            foresee=partial(task.foresee, num_test=len(self.scored)),
        )

    def __str__(self) -> str:
        learned = _of(len(self.pool), self.num_pool, "images to learn from")
        if not self.num_scored:
            return f"{self.why} {learned}; the others are not looked at"
        scored = _of(len(self.scored), self.num_scored, "test images")
        return f"{self.why} {learned} and {scored}, drawn by class; the others are not looked at"


def _of(some: int, all_: int, what: str) -> str:
    return f"{some} of {all_} {what}" + (f" ({some / all_:.0%})" if all_ else "")


@dataclass(frozen=True)
class Order:
    """Rows in an order whose beginnings stand for all of them.

    Args:
        rows: of both sides of the test split.
        num_least: of the fewest that there is anything from.
        num_first: from here on every beginning stands for the whole.
    """

    rows: Rows
    num_least: int
    num_first: int


def order(labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], pool: Rows, scored: Rows, seed: int) -> Order:
    """Classes in proportion, those of the pool and those of the test split each.

    But the first few pictures of each class that are to be learned from come before all others, one of each class after
    the other, since a class without any is none, and some to score with the first two. Copies of a picture are
    neighbours.

    Shape:
        labels_N, groups_N: [N]
    """
    draws = np.random.default_rng(seed)
    keys = [_keys(labels_N[part], groups_N[part], draws, is_learned=part is pool) for part in (pool, scored)]
    num_learned, behind = int((keys[0] < 0).sum()), LEAST_CLASS_IMAGES - CLASS_IMAGES
    if len(scored):
        last = np.sort(keys[1])[min(LEAST_SCORED, len(scored)) - 1]
        keys[1][keys[1] <= last] = behind - 0.25
    rows, key_N = np.concatenate([pool, scored]), np.concatenate(keys)
    ordered = rows[np.lexsort((groups_N[rows], key_N))]
    num_first = min(len(rows), num_learned + FIRST_IMAGES)
    # Where nothing is scored, as of a source, it is as many in all.
    num_least = min(num_first, max(int((key_N < behind).sum()), LEAST_SCORED))
    least, first = (whole(groups_N[ordered], num) if num else 0 for num in (num_least, num_first))
    return Order(ordered, least, first)


def _keys(
    labels_P: NDArray[np.int64], groups_P: NDArray[np.int64], draws: np.random.Generator, *, is_learned: bool
) -> NDArray[np.float64]:
    """Where an item stands; below zero in the first few of its class. A picture under two labels stands for both."""
    pairs_U, unit_P = np.unique(np.stack([groups_P, labels_P], axis=1), axis=0, return_inverse=True)
    key_U = np.empty(len(pairs_U))
    for label in np.unique(labels_P):
        members = draws.permutation(np.flatnonzero(pairs_U[:, 1] == label))
        place = (np.arange(len(members)) + draws.random(len(members))) / len(members)
        if is_learned:
            first = place[:CLASS_IMAGES]
            first[:] = np.arange(len(first)) - CLASS_IMAGES + first / 2
        key_U[members] = place
    _, group_P = np.unique(groups_P, return_inverse=True)
    least_G = np.full(len(groups_P), np.inf)
    np.minimum.at(least_G, group_P, key_U[unit_P.reshape(-1)])
    return np.asarray(least_G[group_P])


def chosen(rows: Rows, task: Task, scored: Rows, why: str = NO_TIME) -> Excerpt:
    """Some rows of a dataset, each side by itself."""
    pool = np.intersect1d(task.pool, rows)
    return Excerpt(pool, np.intersect1d(scored, rows), len(task.pool), len(scored), why)


def grow(
    order: Order,
    groups_N: NDArray[np.int64],
    extract: Callable[[Rows, bool], Extraction],
    num_missing: Callable[[Rows], int],
    num_fitting: Callable[[float], float],
) -> tuple[int, list[Extraction]]:
    """Extracts what there is time for, round by round.

    Args:
        order: of the rows.
        groups_N: copies of one picture share a number.
        extract: features of rows into the cache; and whether they belong to the first round.
        num_missing: how many of some rows are not in the cache.
        num_fitting: how many images the time holds, at so many seconds each.

    Returns:
        how many rows of the order are known, and what it took.

    Raises:
        Left: the fewest were.
    """
    ordered = order.rows
    done, extractions = order.num_least, [extract(ordered[: order.num_least], True)]
    while done < len(ordered):
        is_first = done < order.num_first
        if not num_missing(ordered[done:]):
            return len(ordered), [*extractions, Extraction(len(ordered) - done, 0, 0.0)]
        end = order.num_first
        if not is_first:
            num = sum(one.num_extracted for one in extractions)
            pace = sum(one.seconds for one in extractions if one.num_extracted) / max(1, num)
            size = int(min(GROWTH * done, len(ordered) - done, num_fitting(pace)))
            if size < 1:
                break
            end = whole(groups_N[ordered], done + size)
        try:
            extractions.append(extract(ordered[done:end], is_first))
        except features.Left:
            break
        done = end
    return done, extractions
