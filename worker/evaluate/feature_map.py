"""Features of some items in two dimensions, to look at: the two directions in which they differ most. Torch-free.

Principal components, from the features themselves by block power iteration (Halko et al., arXiv 0909.4061, algorithm
4.4): neither a D x D nor an N x N matrix is made. A picture, nothing to decide by: two axes hold a small share of the
variance, and `explained` says how small.

Shape legend: N shown items, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ITEMS = 500
BLOCK = 10
ITERATIONS = 6
# A picture has no use for more.
DIGITS = 4

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Items that are drawn alike: a split, or a domain.

    Args:
        name: for people.
        num_items: of the group; the map has a part of them.
        feats_ND: of the part.
        labels_N: numbers of classes, -1 where there is none.
        correct_N: whether the model names them right; None where nobody asked.

    Shape:
        feats_ND: [N, D]
    """

    name: str
    num_items: int
    feats_ND: NDArray[np.floating]
    labels_N: Ints
    correct_N: NDArray[np.bool_] | None = None


def part(num_items: int, seed: int) -> Ints:
    """Which of so many items are shown: at most MAX_ITEMS, in ascending order."""
    if num_items <= MAX_ITEMS:
        return np.arange(num_items)
    return np.sort(np.random.default_rng(seed).permutation(num_items)[:MAX_ITEMS])


def feature_map(groups: Sequence[Group], names: Sequence[str], what: str) -> dict[str, Any] | None:
    """All groups in the plane of their common principal components; None with fewer than three items.

    Args:
        groups: at least one; all of one space.
        names: of the classes.
        what: the space, for people.
    """
    feats_ND = np.concatenate([group.feats_ND for group in groups])
    if len(feats_ND) < 3:
        return None
    coordinates_N2, explained_2 = principal(feats_ND)
    ends = np.cumsum([len(group.feats_ND) for group in groups])[:-1]
    return {
        "what": what,
        "labels": list(names),
        "explained": [float(f"{value:.{DIGITS}g}") for value in explained_2],
        "groups": [
            {
                "name": group.name,
                "num_items": group.num_items,
                "x": _short(part_N2[:, 0]),
                "y": _short(part_N2[:, 1]),
                "label": group.labels_N.tolist(),
                "correct": None if group.correct_N is None else group.correct_N.astype(int).tolist(),
            }
            for group, part_N2 in zip(groups, np.split(coordinates_N2, ends), strict=True)
        ],
    }


def principal(feats_ND: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Coordinates on the first two principal components, and the share of the variance on each.

    Signs are settled by the item farthest out, which is on the positive side.

    Shape:
        result: [N, 2], [2]
    """
    centred_ND = np.asarray(feats_ND, np.float32)
    centred_ND = centred_ND - centred_ND.mean(0)
    total = float(np.vdot(centred_ND, centred_ND))
    if total == 0:
        return np.zeros((len(centred_ND), 2), np.float32), np.zeros(2)
    width = min(BLOCK, *centred_ND.shape)
    block_NB = centred_ND @ np.random.default_rng(0).standard_normal((centred_ND.shape[1], width)).astype(np.float32)
    for _ in range(ITERATIONS):
        basis_NB, _ = np.linalg.qr(block_NB)
        block_NB = centred_ND @ (centred_ND.T @ basis_NB)
    basis_NB, _ = np.linalg.qr(block_NB)
    small_BD = basis_NB.T @ centred_ND
    values_B, vectors_BB = np.linalg.eigh(small_BD @ small_BD.T)
    kept = min(2, width)
    # eigh is ascending.
    squares_K = np.maximum(values_B[::-1][:kept], 0)
    coordinates_N2 = np.zeros((len(centred_ND), 2), np.float32)
    coordinates_N2[:, :kept] = (basis_NB @ vectors_BB[:, ::-1][:, :kept]) * np.sqrt(squares_K)
    farthest_2 = np.abs(coordinates_N2).argmax(0)
    coordinates_N2 *= np.where(coordinates_N2[farthest_2, [0, 1]] < 0, -1, 1)
    explained_2 = np.zeros(2)
    explained_2[:kept] = squares_K / total
    return coordinates_N2, explained_2


def _short(values_N: NDArray[np.float32]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values_N.tolist()]
