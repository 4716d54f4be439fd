"""Images that lie far from all others of their class in feature space. No torch.

The score is the mean distance to the nearest neighbours (Ramaswamy et al., SIGMOD 2000; on deep features of length 1:
Sun et al., arXiv 2204.06507, section 3), among images of the same class that are not copies. What is far is decided by
the class itself: the logarithm of the distance in robust standard deviations from the class's median (modified z-score,
Iglewicz and Hoaglin 1993). No more than a small share of the images is named, the farthest first.

Shape legend: N items, D features, R references, K neighbours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.advice.drawing import some
from worker.advice.findings import Finding, Found
from worker.solvers.spectrum import row_chunks

Double = NDArray[np.float64]
Ints = NDArray[np.int64]
Float = NDArray[np.float32]

NEIGHBOURS = 5
# A class needs so many different pictures for its median and spread to mean something.
MIN_CLASS = 15
# Iglewicz and Hoaglin's limit. Of strange images among emoji, photos and digits 38 % are beyond it, and 0.4 % of the
# others; beyond 3 it would be 58 % and 0.7 %, of emoji alone 2.5 %.
MIN_Z = 3.5
MAX_SHARE = 0.02
# Neighbours are looked for among this many images of a class: memory and time stay proportional to N.
REFERENCES = 5000
_ALL = -1


@dataclass(frozen=True)
class Distances:
    """How far every item is from its class; NaN where its class is too small to say.

    Args:
        distance_N: mean distance to the nearest, 0 to 2.
        z_N: in robust standard deviations from the class's median.
    """

    distance_N: Double
    z_N: Double


def unit(feats_ND: Float) -> Float:
    """Features of length 1; zeros stay zeros.

    Around their mean, or standardised, they tell strange images less well (average precision 0.51 and 0.34, not 0.66).

    Shape:
        feats_ND: [N, D]
    """
    length_N1 = np.linalg.norm(feats_ND, axis=1, keepdims=True)
    return np.asarray(feats_ND / np.where(length_N1 > 0, length_N1, 1.0), np.float32)


def measure(unit_ND: Float, labels_N: Ints, groups_N: Ints, seed: int) -> Distances:
    """Distances within each label; items without a label (negative) are a class of their own.

    Shape:
        unit_ND: [N, D], by `unit`
        labels_N: [N]
        groups_N: [N], copies of one picture share a number
    """
    distance_N, z_N = np.full(len(labels_N), np.nan), np.full(len(labels_N), np.nan)
    for label in np.unique(np.maximum(labels_N, _ALL)):
        rows = np.flatnonzero(np.maximum(labels_N, _ALL) == label)
        # One of each picture, so that there are neighbours enough that are no copies.
        different: Ints = rows[np.unique(groups_N[rows], return_index=True)[1]]
        if len(different) < MIN_CLASS:
            continue
        chosen = some(different, REFERENCES, seed)
        distance_N[rows] = _nearest(unit_ND, rows, chosen, groups_N)
        z_N[rows] = modified_z(np.log(np.maximum(distance_N[rows], 1e-6)))
    return Distances(distance_N, z_N)


def find(distances: Distances, names: list[str | None], skip_N: NDArray[np.bool_]) -> Found:
    """The farthest items, no more than MAX_SHARE of all.

    Args:
        distances: of all items, in the order of the dataset.
        names: label of each item.
        skip_N: items that another finding explains.
    """
    if np.isnan(distances.z_N).all():
        return Found(reason=f"expected at least {MIN_CLASS} different pictures in a class; found fewer in all of them")
    z_N = np.where(skip_N | np.isnan(distances.z_N), -np.inf, distances.z_N)
    far = np.flatnonzero(z_N > MIN_Z)
    far = far[np.argsort(-z_N[far], kind="stable")][: max(1, int(MAX_SHARE * len(z_N)))]
    found = []
    for row in far.tolist():
        distance, z = float(distances.distance_N[row]), float(distances.z_N[row])
        among = "the other images" if names[row] is None else f"the other images of {names[row]!r}"
        message = (
            f"unlike {among}: {distance:.2f} from its nearest in feature space, {z:.1f} robust standard deviations "
            "from what is usual; rare but right images are far as well, so look before it is removed"
        )
        data = {"distance": round(distance, 4), "z": round(z, 2)}
        # No confidence: how many of the far ones do not belong is known to nobody but who looks at them.
        found.append(Finding("outlier", message, (row,), names[row], "remove", (row,), data=data))
    return Found(tuple(found))


def modified_z(values_N: Double) -> Double:
    """Distance from the median in median absolute deviations, scaled to those of a normal distribution.

    Where more than half of the values are equal the mean absolute deviation stands in (Iglewicz and Hoaglin).
    """
    apart_N = values_N - np.median(values_N)
    deviation = float(np.median(np.abs(apart_N))) * 1.482602
    if deviation == 0:
        deviation = float(np.abs(apart_N).mean()) * 1.253314
    return apart_N / deviation if deviation > 0 else np.zeros_like(apart_N)


def _nearest(unit_ND: Float, rows: Ints, chosen: Ints, groups_N: Ints) -> Double:
    """Mean distance of rows to the NEIGHBOURS nearest chosen ones of other groups [len(rows)]."""
    reference_RD = unit_ND[chosen]
    found = np.empty(len(rows))
    for start, stop in row_chunks(len(rows)):
        block = rows[start:stop]
        cosine_BR = unit_ND[block] @ reference_RD.T
        # Copies, and the item itself, are no neighbours; below every cosine.
        cosine_BR[groups_N[block, None] == groups_N[chosen]] = -2.0
        near_BK = -np.partition(-cosine_BR, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        found[start:stop] = np.sqrt(np.maximum(2 - 2 * near_BK, 0)).mean(1)
    return found
