"""Telling images that show none of the classes from those that do: scores, and how well they rank. Torch-free.

Three scores, higher for the familiar: the largest probability (arXiv 1610.02136), the energy, which is the log of the
sum of exponentials of the logits (arXiv 2010.03759, equation 3), and the cosine of the K-th nearest of the images that
were learned from (arXiv 2204.06507, equation 3). Nothing is tuned on the strangers.

Shape legend: N familiar items, M strange ones, P that were learned from, D features, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import unit

# The paper takes 50 of 50,000; of the few hundred images of a transfer that would be other classes.
NEIGHBOURS = 10
MAX_LEARNED = 5000
_CHUNK_ROWS = 1024

Floats = NDArray[np.floating]
Double = NDArray[np.float64]


def auroc(familiar_N: Floats, strange_M: Floats) -> float:
    """Chance that a familiar item scores above a strange one, ties counting half: 0.5 is a coin, 1 a clean cut.

    Shape:
        familiar_N: [N]; strange_M: [M].

    Raises:
        ValueError: one of them is empty.
    """
    if not familiar_N.size or not strange_M.size:
        raise ValueError(f"expected scores of both kinds; found {familiar_N.size} and {strange_M.size}")
    ordered = np.sort(strange_M)
    below_N = np.searchsorted(ordered, familiar_N, "left") + np.searchsorted(ordered, familiar_N, "right")
    return float(below_N.mean() / (2 * strange_M.size))


def energy(logits_NC: Double) -> Double:
    """Log of the sum of exponentials, the negative of the paper's energy at temperature 1.

    Shape:
        result: [N]
    """
    top_N = logits_NC.max(1)
    found: Double = top_N + np.log(np.exp(logits_NC - top_N[:, None]).sum(1))
    return found


def nearness(feats_ND: Floats, learned_PD: Floats, num_neighbours: int = NEIGHBOURS) -> Double:
    """Cosine to the K-th nearest of what was learned from; of fewer, to the last of them.

    Shape:
        result: [N]
    """
    learned_PD = unit(learned_PD)
    place = max(len(learned_PD) - num_neighbours, 0)
    parts = [
        np.partition(unit(feats_ND[start : start + _CHUNK_ROWS]) @ learned_PD.T, place, axis=1)[:, place]
        for start in range(0, len(feats_ND), _CHUNK_ROWS)
    ]
    return np.concatenate(parts).astype(np.float64)
