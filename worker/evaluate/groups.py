"""The group of images that a model names worst: a camera, a place or a style, where an upload keeps them in folders.

Whoever sorts images by such things puts them into folders beside or below those of the classes. What of an item's path
is neither common to all nor its class is its group (WILDS calls them domains, arXiv 2012.07421). Of many small groups
one is far below the others by chance alone, so small ones are left out, and the accuracy has Wilson's interval.

Shape legend: T scored items.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.scores.worst_class import wilson

MIN_ITEMS = 10
NO_GROUPS = (
    f"needs two groups of {MIN_ITEMS} scored items at least: folders beside or below those of the classes, such as "
    "cameras or places"
)
WHAT = f"folders that are no class's, of {MIN_ITEMS} scored items at least"


def worst_group(paths: Sequence[str], labels: Sequence[str], correct_T: NDArray[np.bool_]) -> dict[str, Any] | None:
    """The group with the lowest accuracy, of equal ones that with the most items; None without two groups.

    Args:
        paths: of the scored items in their upload.
        labels: names of their classes.
        correct_T: which are named right.
    """
    group_T = np.array(names(paths, labels))
    found = []
    for name in np.unique(group_T):
        own = correct_T[group_T == name]
        if name and len(own) >= MIN_ITEMS:
            found.append((float(own.mean()), -len(own), str(name)))
    if len(found) < 2:
        return None
    accuracy, size, name = min(found)
    low, high = wilson(round(accuracy * -size), -size)
    return {
        "group": name,
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "num_samples": -size,
        "num_groups": len(found),
        "what": WHAT,
    }


def names(paths: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The group of each item; empty where its path has no folder but its class's and what all have in common."""
    folders = [path.split("/")[:-1] for path in paths]
    # Each level that has one name alone; the paths of all are as deep there.
    depth = next((level for level, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), None)
    depth = min(map(len, folders), default=0) if depth is None else depth
    found = []
    for parts, label in zip(folders, labels, strict=True):
        own = parts[depth:]
        if label in own:
            own.remove(label)
        found.append("/".join(own))
    return found
