"""What a method gives back: a candidate that can be served, how it was found, and what it was compared with.

Shape legend: N images of the dataset, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.adaptation import Adaptation
from worker.contract.candidate import Candidate, Selection
from worker.contract.excerpt import Excerpt
from worker.contract.task import Rows


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
    skipped: tuple[Decision, ...] = ()
    serve: Callable[[], Candidate] | None = None


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
