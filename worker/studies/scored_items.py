"""Which items of a dataset a published version was scored on, by its own predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact.predicted import Predictions
from app.artifact.selection import TRANSFER
from worker.contract.task import Rows
from worker.data.samples import Index


@dataclass(frozen=True)
class ScoredItems:
    """The items with known answers, in the order of the predictions.

    Args:
        rows: of the dataset.
        labels_T: their classes, by the version's labels.
        named_T: the class that the transfer named, which is not what is served where the job fell back.
    """

    rows: Rows
    labels_T: NDArray[np.int64]
    named_T: NDArray[np.int64]


def scored(known: Predictions, index: Index, names: tuple[str, ...]) -> ScoredItems:
    """What was scored.

    Args:
        known: what the version said of its scored items.
        index: of the dataset that they are from.
        names: the version's labels.
    """
    place, class_of = places(index), {name: number for number, name in enumerate(names)}
    said = known.baselines.get(TRANSFER, known.predicted)
    found = [
        (place[name], class_of[label], class_of[named])
        for name, label, named in zip(known.ids, known.labels, said, strict=True)
        if label is not None
    ]
    return ScoredItems(*np.array(found, np.int64).T)


def places(index: Index) -> dict[str, int]:
    """Row of each sample, by its id."""
    return {name.decode(): row for row, name in enumerate(index.ids)}


def others(index: Index, names: tuple[str, ...]) -> Rows:
    """Test items of the dataset's classes that the version does not have."""
    strange = [label for label, name in enumerate(index.classes) if name not in names]
    rows = index.rows_of("test")
    return rows[np.isin(index.label[rows], strange)]
