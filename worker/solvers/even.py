"""Random orders of a pool in which every class comes evenly and copies of a picture stay together. Torch-free.

Shape legend: N items, G groups (a picture and its copies).
"""

import numpy as np
from numpy.typing import NDArray


def even_order(
    labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], chance: np.random.Generator
) -> NDArray[np.int64]:
    """A random order in which copies are neighbours and each beginning holds every class in its share of the whole.

    Shape:
        labels_N, groups_N: [N]; returns [N], positions.
    """
    _, first_G, group_N = np.unique(groups_N, return_index=True, return_inverse=True)
    label_G = labels_N[first_G]
    key_G = np.empty(len(first_G))
    for label in np.unique(label_G):
        members = chance.permutation(np.flatnonzero(label_G == label))
        key_G[members] = (np.arange(len(members)) + chance.random()) / len(members)
    return np.lexsort((group_N, key_G[group_N])).astype(np.int64)


def whole(groups_N: NDArray[np.int64], size: int) -> int:
    """The least size from which no group is cut, going up.

    Shape:
        groups_N: [N], in the order of a draw.
    """
    while size < len(groups_N) and groups_N[size] == groups_N[size - 1]:
        size += 1
    return size
