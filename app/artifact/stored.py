"""features.safetensors: features of some test items, so that a changed head can be scored without their images.

Rows are those of predictions.parquet that `rows` names; a label that is no class of the model is not kept.

Shape legend: T items, D features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ITEMS = 2000


def pack(
    features_TD: NDArray[np.float32], labels_T: Sequence[str | None], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """At most MAX_ITEMS of the items, each class in its share: the same items give the same choice.

    In half precision where it holds the numbers, which halves the file; 3 digits do not move a decision that is one.

    Shape:
        features_TD: [T, D]
        labels_T: [T]
    """
    place = {name: index for index, name in enumerate(names)}
    label_T = np.array([-1 if label is None else place.get(label, -1) for label in labels_T], np.int64)
    rows = spread(label_T, MAX_ITEMS)
    kept_TD = np.asarray(features_TD, np.float32)[rows]
    fits = not kept_TD.size or float(np.abs(kept_TD).max()) <= float(np.finfo(np.float16).max)
    return {
        "features": kept_TD.astype(np.float16) if fits else kept_TD,
        "labels": label_T[rows],
        "rows": rows.astype(np.int64),
    }


def spread(label_T: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """Rows of at most `most` items with a label, in their order, evenly out of each class.

    Shape:
        label_T: [T], -1 for none
    """
    known = np.flatnonzero(label_T >= 0)
    if len(known) <= most:
        return known
    # Sorted by class, every n-th item: each class gets its share, rounded, and none twice.
    by_class = known[np.argsort(label_T[known], kind="stable")]
    return np.sort(by_class[(np.arange(most) * len(known)) // most])


def unpack(tensors: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Features [T, D], label indices [T], rows of predictions.parquet [T]."""
    return tensors["features"].astype(np.float32), tensors["labels"], tensors["rows"]
