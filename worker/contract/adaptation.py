"""How a labelled source was brought to a target, and what is known of it there.

Shape legend: N and M items of the source and of the target, K with known answers, D features, E as a head sees them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.candidate import Candidate
from worker.contract.task import Float, Rows


@dataclass(frozen=True)
class Confidence:
    """How sure a model is of items with known answers, and of others.

    Args:
        known_K: negative entropy of what it says of items that it has not learned from.
        right_K: whether it is right there.
        asked_M: negative entropy of what it says of the others.
        labels_K: the known answers; classes counted from 0.

    Shape:
        known_K, right_K, labels_K: [K]; asked_M: [M]
    """

    known_K: NDArray[np.float64]
    right_K: NDArray[np.bool_]
    asked_M: NDArray[np.float64]
    labels_K: NDArray[np.int64]


@dataclass(frozen=True)
class Tried:
    """One way to adapt, finished: what it would serve, and what the validator saw of it.

    Args:
        candidate: what it would serve.
        scores: of the validator.
        confidence: on held-out source items and on the target, to estimate the accuracy there; None where labels of the
            target were learned from.
    """

    candidate: Candidate
    scores: dict[str, float | None]
    confidence: Confidence | None = None


@dataclass(frozen=True)
class Spaces:
    """Features of some items of both domains, to be drawn: as the backbone has them, and as the served head sees them.

    Args:
        source_rows: which source items.
        target_rows: which target items.
        before: of the source and of the target.
        after: the same items; None where the served head sees what the backbone gives.

    Shape:
        source_rows: [N]
        target_rows: [M]
        before: [N, D], [M, D]
        after: [N, E], [M, E]
    """

    source_rows: Rows
    target_rows: Rows
    before: tuple[Float, Float]
    after: tuple[Float, Float] | None = None


@dataclass(frozen=True)
class Adaptation:
    """How a labelled source was brought to the target.

    Args:
        source_only: the probe of the source, unchanged.
        tried: every candidate, that one included.
        source_val_accuracy: of the source's probe, on source items that it has not learned from.
        domain: distances of the two domains, JSON-ready.
        spaces: what to draw of them.
    """

    source_only: Candidate
    tried: tuple[Tried, ...]
    source_val_accuracy: float
    domain: dict[str, Any]
    spaces: Spaces | None = None
