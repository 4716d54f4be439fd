"""One finished transfer, and what it is chosen by.

Shape legend: N images of the dataset, P of the pool (all but the test split), D features, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import HeadKind
from worker.backbones.extraction import Extraction
from worker.backbones.prepared import Prepared
from worker.contract.task import Float, Rows


class Head(Protocol):
    """What turns features into probabilities; `heads.py` has the kinds."""

    @property
    def kind(self) -> HeadKind:
        """As spec.json names it."""

    @property
    def temperature(self) -> float:
        """What logits are divided by."""

    @property
    def num_params(self) -> int:
        """Numbers that were learned."""

    def logits(self, features_ND: Float) -> NDArray[np.float64]:
        """Uncalibrated scores [N, C]."""

    def probabilities(self, features_ND: Float) -> NDArray[np.float64]:
        """Probabilities [N, C], calibrated where the temperature was fitted."""

    def graph(self) -> bytes:
        """ONNX, `features` -> `probabilities`; what is published."""

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Its arrays before folding, for weights.safetensors."""


# Datasets of a job that a model may learn from: its own, and a source beside it.
DATASET, SOURCE = "dataset", "source"
# Why nothing is known where a selection is blind.
BLIND = "each class has one picture to learn from; where it is left out the class is unknown; add images"
# What a choice says that had nothing to go by.
CHEAPEST = f"{BLIND}: the cheapest is taken"


@dataclass(frozen=True)
class Selection:
    """Predictions on data that was not learned from: out-of-fold, or on a hold-out.

    Args:
        rows: of the data.
        logits: what was said of them.
        what: which they are, for people.
        optimism: what these very items chose, and so may flatter; None where they chose nothing.
        again: logits under other draws of the folds, for comparisons: which fold an item falls into is luck.
        is_blind: each class had one picture, so that it was unknown where that was left out: nothing could be right.

    Shape:
        rows: [P]
        logits, and each of again: [P, C]

    Raises:
        ValueError: a logit is not a number: what is named would hang on the order of the classes.
    """

    rows: Rows
    logits: NDArray[np.float64]
    what: str
    optimism: str | None = None
    again: tuple[NDArray[np.float64], ...] = ()
    is_blind: bool = False

    def __post_init__(self) -> None:
        """Refuses what no choice can be made by."""
        if any(np.isnan(one_PC).any() for one_PC in (self.logits, *self.again)):
            raise ValueError(f"expected numbers as logits of the selection ({self.what}); found NaN")


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one tensor of a backbone.

    Args:
        name: in the backbone's state dict.
        shape: in the model.
        what: `frozen` (came over as it was), `mapped` (came over in another shape), `trained`, `folded` (a learned
            adapter went into it), `new`, or `measured` (of a head: no parameter, as what features are standardised by).
    """

    name: str
    shape: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Candidate:
    """One finished transfer, ready to be evaluated and published.

    Args:
        method: of the recipe that would give it.
        name: with what was chosen inside it, for people.
        head: the learned head.
        graph: ONNX file, images -> features.
        backbone: what it came from.
        shared: whether the graph is the backbone's own, unchanged.
        selection: what it is chosen by.
        features: features of rows under `graph`, from the cache where they are known.
        reference: features of rows as the training side computes them; the published graph must agree with these.
        seconds: wall time, extraction included.
        fold_accuracy: of each fold; empty where there were none.
        calibrated: whether the temperature was fitted.
        trained_params: numbers that were learned.
        details: for the report.
        moved: what became of the backbone's tensors; empty where all came over and stayed.
        start: what the frozen network that training started from said of the selection's items; None without training.
        state: writes the weights behind a graph that is not the backbone's own, as safetensors.
        judged: predictions of selection items in which the choice that made the candidate had no part: each half of
            them is named as the choice by the other half says (`evaluate/judged.py`). None without such a choice.
        refit: fits the head again, as it was chosen, to other features and labels; None where that is a training.
        learned_from: which of the job's datasets it was fitted to: DATASET, SOURCE or both. What only chose it taught
            it nothing.
    """

    method: str
    name: str
    head: Head
    graph: Path
    backbone: Prepared
    shared: bool
    selection: Selection
    features: Callable[[Rows], Float]
    reference: Callable[[Rows], Float]
    seconds: float
    fold_accuracy: tuple[float, ...]
    calibrated: bool
    trained_params: int
    details: dict[str, Any] = field(default_factory=dict)
    extraction: Extraction | None = None
    moved: tuple[Moved, ...] = ()
    start: Selection | None = None
    state: Callable[[Path], None] | None = None
    judged: Selection | None = None
    refit: Callable[[Float, NDArray[np.int64]], Head] | None = None
    learned_from: tuple[str, ...] = (DATASET,)
