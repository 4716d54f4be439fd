"""What a method is given. Methods never touch storage, rows or events by themselves.

Shape legend: N images of the dataset, P of the pool (all but the test split), D features.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.attempt.context import RunContext
from worker.backbones.prepared import Prepared
from worker.data.samples import Index

Rows = NDArray[np.int64]
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Domain:
    """A dataset beside the job's own, to learn from: `pool` is what may be; labels are -1 where there are none."""

    index: Index
    labels_N: NDArray[np.int64]
    pool: Rows


class Foresee(Protocol):
    """Called by methods as soon as the frozen features of the pool are there: tells what may be expected of them."""

    def __call__(
        self, task: "Task", feats_PD: Float, num_learned: int | None = None, num_test: int | None = None
    ) -> None:
        """Foretells.

        Args:
            task: with the backbone whose features these are.
            feats_PD: of the pool.
            num_learned: images that will be learned from, where that is not the whole pool.
            num_test: images that will be scored, where that is not the whole test split.

        Shape:
            feats_PD: [P, D]
        """


def foresee_nothing(task: "Task", feats_PD: Float, num_learned: int | None = None, num_test: int | None = None) -> None:
    """Where there is nothing to foretell: no labels, or another domain."""


@dataclass(frozen=True)
class Task:
    """The data that a method works on. Rows of the test split are not in here.

    `backbones` may be chosen from (more than one when the job says `auto`); `backbone` is the one to use. With a
    `source` of another domain the index is the target's, without its labels, and classes are the source's. `unlabelled`
    are more images like the task's own. `foresee` is to be called with the pool's features before training. `left_out`
    are rows that could be learned from, had there been the time (see `excerpt`).
    """

    context: RunContext
    index: Index
    backbone: Prepared
    backbones: tuple[Prepared, ...]
    labels_N: NDArray[np.int64]
    pool: Rows
    train: Rows
    val: Rows
    num_classes: int
    class_names: tuple[str, ...]
    seed: int
    source: Domain | None = None
    unlabelled: Domain | None = None
    foresee: Foresee = foresee_nothing
    left_out: Rows = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def groups_N(self) -> NDArray[np.int64]:
        """Copies of one picture share a number."""
        return self.index.group
