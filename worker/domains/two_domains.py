"""The data of an adaptation: a labelled source, and a target whose labels nothing that fits or chooses can see.

Shape legend: N images of the target.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.errors import JobFailure
from app.recipes import Adapt
from worker.attempt.context import RunContext
from worker.contract.task import Domain, Rows, Task
from worker.data import labels
from worker.data.samples import Index
from worker.prepare import sources

# Of a target without labels: every candidate is fitted on half of it and looked at on the other half.
MIN_ITEMS = 10


@dataclass(frozen=True)
class Truth:
    """What only the report may see: the target's labels in the source's numbering, and the items that are scored.

    Shape:
        labels_N: [N], -1 where there is none
    """

    labels_N: NDArray[np.int64]
    scored: Rows
    what: str


def is_labelled(source: Index, target: Index) -> bool:
    """Whether the target has a labelled image of each of the source's classes outside its test split."""
    learned = np.concatenate([target.rows_of("train"), target.rows_of("val")])
    given = np.asarray(target.label, np.int64)[learned]
    return {target.classes[label] for label in given[given >= 0]} == set(source.classes)


def make_task(context: RunContext, recipe: Adapt, source: Index, target: Index) -> tuple[Task, Truth]:
    """The task without the target's labels, and those labels apart.

    The target's index loses its label column too, so that no way leads from the task to a label. Where the target's
    labels are learned from (`target_labels`), the task has those of its training and validation items, and its test
    split is scored; else all its images are fitted to (without labels) and all that have a label are scored.

    Raises:
        JobFailure: dataset_invalid, too few images of an unlabelled target; weights_unavailable.
    """
    number = {name: place for place, name in enumerate(source.classes)}
    given = np.asarray(target.label, np.int64)
    numbers = np.array([number[name] for name in target.classes] or [-1], np.int64)
    truth_N = np.where(given >= 0, numbers[np.maximum(given, 0)], -1)
    train, val, test = (target.rows_of(split) for split in ("train", "val", "test"))
    known_N, pool, scored = np.full_like(truth_N, -1), np.arange(len(target)), np.flatnonzero(truth_N >= 0)
    if recipe.target_labels:
        train, val = (rows[truth_N[rows] >= 0] for rows in (train, val))
        pool, scored = np.sort(np.concatenate([train, val])), test[truth_N[test] >= 0]
        known_N[pool] = truth_N[pool]
    elif len(pool) < MIN_ITEMS:
        raise JobFailure(
            "dataset_invalid",
            f"expected at least {MIN_ITEMS} images of the target, to know it by; found {len(pool)}; add images, "
            "labelled or not",
        )
    own = np.asarray(source.label, np.int64)
    learned = np.sort(np.concatenate([source.rows_of("train"), source.rows_of("val")]))
    backbones = sources.open_backbones(context)
    task = Task(
        context=context,
        index=replace(target, columns=(labels.unlabelled(len(target)),)),
        backbone=backbones[0],
        backbones=backbones,
        labels_N=known_N,
        pool=pool,
        train=train,
        val=val,
        num_classes=len(source.classes),
        class_names=source.classes,
        seed=context.document.seed,
        source=Domain(source, own, learned[own[learned] >= 0]),
    )
    what = "test split" if recipe.target_labels else "all labelled images; fitted to without their labels"
    return task, Truth(truth_N, scored, what)
