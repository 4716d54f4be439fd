"""What a method gives back: a candidate that can be served, and how it was found.

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
from worker.contract.excerpt import Excerpt
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


@dataclass(frozen=True)
class Scratch:
    """The better, on selection data, of two networks that learned from this data alone.

    Args:
        what: which one.
        selection: its predictions on the hold-outs, each by a network that had not seen it.
        predict: rows -> probabilities, by the one that was compared on the first hold-out.
        seconds: wall time of all trainings.
        num_learned: images that it has learned from.
        details: for the report.
        unfair: why a gain over it would be a lie; None where it had its chance.
        hurried: that its time ended it before it had the epochs that it wanted; None where it had them.
        skipped: the one of the two that was not trained.
        serve: makes of it what can be published: it writes its graph, which takes seconds.
    """

    what: str
    selection: Selection
    predict: Callable[[Rows], NDArray[np.float64]]
    seconds: float
    num_learned: int
    details: dict[str, Any] = field(default_factory=dict)
    unfair: str | None = None
    hurried: str | None = None
    skipped: tuple["Decision", ...] = ()
    serve: Callable[[], Candidate] | None = None


@dataclass(frozen=True)
class Decision:
    """One thing that was tried, or not, and why: a row of the report, an event of the job.

    Args:
        step: what it is about.
        outcome: `tried` (with its score), `dropped` (by a choice), `leads` (the best so far; more may be tried), `kept`
            (by the last choice), `skipped` (never started, or left), `failed` (a training that could not go on), `done`
            (features, a distance), `served`.
        reason: for people.
        score: by what is maximised, on selection data; of a distance, the distance.
        low: 95 % bound.
        high: 95 % bound.
        seconds: that it took.
        forecast_seconds: that it was expected to take, before it started.
    """

    step: str
    outcome: str
    reason: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    seconds: float | None = None
    forecast_seconds: float | None = None


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


@dataclass(frozen=True)
class Outcome:
    """A method's result: what is to be served, and what it was compared with.

    Args:
        candidate: that is served.
        decisions: that led to it.
        frozen: the linear probe on the same backbone, where there was one.
        compared_by_seconds: when baselines must have ended, from the job's beginning; None where nobody waits.
        image_seconds: to decode one and pass it through the candidate's backbone, where that is known.
        adaptation: where a source was joined.
        unjoined: why one that was given was not.
        apart: where it is told how far images without labels lie, where there were some beside the dataset.
        excerpt: what there was time for, where that is not all images.
        stays: why it is served even where a verdict says that it is worse; None where the better baseline is then.
    """

    candidate: Candidate
    decisions: tuple[Decision, ...] = ()
    frozen: Candidate | None = None
    compared_by_seconds: float | None = None
    image_seconds: float | None = None
    adaptation: Adaptation | None = None
    unjoined: str = ""
    apart: str = ""
    excerpt: Excerpt | None = None
    stays: str | None = "this recipe has no `fallback`"
