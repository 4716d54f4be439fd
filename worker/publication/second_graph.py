"""Whether a version gets graphs in 8 bits or half precision: made on its job's images, published by their accuracy.

The rule has no setting: the lower end of the 95 % interval of (accuracy with it - accuracy in floating point) is at
least -0.01, on items that the head has not learned from, the same for all graphs. The test split has no part in it.

Shape legend: N items, D features, C classes.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import bundle, stored
from app.artifact.precisions import FP16, INT8, Second, SecondGraph
from app.serving.runtime import BATCH_SIZE, Session
from worker.attempt.machine import describe
from worker.backbones import features
from worker.contract.candidate import Candidate, Head
from worker.contract.task import Float, Rows, Task
from worker.publication.calibration import Batches
from worker.publication.halve import halve
from worker.publication.quantise import quantise
from worker.scores import intervals
from worker.scores.intervals import Interval
from worker.solvers.folds import stratified_group_folds

MARGIN = 0.01
CALIBRATION_IMAGES = 128
MAX_ITEMS = 2000
NUM_FOLDS = 5
# Fewer items cannot pass, even where no answer changes: the interval is wider than the margin (z^2 / (n + z^2)).
MIN_ITEMS = 381
# Within which a head's own predictions are recognised.
SAME_LOGITS = 1e-3
TIMED_RUNS = 7

# From a graph, images and a place for the new graph, to the graph that shows here what the new one says.
MAKERS: dict[Second, Callable[[Path, Batches, Path], Path]] = {INT8: quantise, FP16: halve}

Right = NDArray[np.bool_]
# A head with the items that it may score: those that it has not learned from.
Heads = list[tuple[Right, Head]]


@dataclass(frozen=True)
class Judged:
    """What became of it.

    Args:
        report: part `int8` or `fp16` of the report.
        graph: what is published; None where nothing is.
        described: of that graph, for the spec.
    """

    report: dict[str, Any]
    graph: Path | None = None
    described: SecondGraph | None = None


@dataclass(frozen=True)
class _Items:
    """Items that neither head nor graph has learned from, and how to score them.

    Args:
        rows: one of each picture.
        what: for people.
        refits: whether the head is fitted again without the items that it then scores.
    """

    rows: Rows
    what: str
    refits: bool


@dataclass(frozen=True)
class _Float:
    """What each second graph is compared with.

    Args:
        rows: the items.
        what: which they are, for people.
        heads: fitted to features in floating point alone.
        right_N: whether each item is named right from those.
    """

    rows: Rows
    what: str
    heads: Heads
    right_N: Right


def judge(task: Task, candidate: Candidate, wanted: Collection[Second]) -> dict[Second, Judged]:
    """Makes each graph that is wanted, measures it beside the one in floating point, and decides."""
    if not wanted:
        return {}
    items = _items(task, candidate)
    if isinstance(items, str):
        return dict.fromkeys(wanted, _not_published(items))
    if len(items.rows) < MIN_ITEMS:
        few = _not_published(
            f"{len(items.rows)} labelled pictures can be scored, and with fewer than {MIN_ITEMS} no interval is narrow "
            f"enough to show that accuracy falls by no more than {MARGIN}",
            num_samples=len(items.rows),
        )
        return dict.fromkeys(wanted, few)
    rows = items.rows[stored.spread(task.labels_N[items.rows], MAX_ITEMS)]
    feats_ND = _features(task, candidate, rows, candidate.graph)
    heads = list(_heads(task, candidate, rows, items.refits, feats_ND))
    found = _Float(rows, items.what, heads, _right(task, rows, heads, feats_ND))
    return {precision: _judge(task, candidate, found, precision) for precision in wanted}


def _judge(task: Task, candidate: Candidate, found: _Float, precision: Second) -> Judged:
    reporter = task.context.reporter
    reporter.progress(0.94, precision)
    graph = task.context.scratch / bundle.SECOND[precision]
    num_images, shown = _make(task, candidate, precision, graph)
    reporter.check_yield()
    right_N = _right(task, found.rows, found.heads, _features(task, candidate, found.rows, shown))
    change = intervals.paired_difference(right_N, found.right_N)
    described = SecondGraph(
        accuracy_change=change.value,
        accuracy_change_low=change.low,
        accuracy_change_high=change.high,
        num_samples=len(found.rows),
        what=found.what,
        num_calibration=num_images,
        size_bytes=graph.stat().st_size,
        float_size_bytes=candidate.graph.stat().st_size,
        **_seconds(task, candidate, graph),
    )
    report = {**described.model_dump(mode="json"), "same": float((right_N == found.right_N).mean())}
    if change.low < -MARGIN:
        return _not_published(f"{_words(change)}, which does not rule out a loss of {MARGIN}", **report)
    reporter.log(f"{precision}: {_words(change)}: a second graph is published", **report)
    return Judged({"published": True, "reason": _words(change), **report}, graph, described)


def _not_published(reason: str, **figures: Any) -> Judged:
    return Judged({"published": False, "reason": reason, **figures})


def _words(change: Interval) -> str:
    return f"accuracy changes by {change.value:+.4f} ({change.low:+.4f} to {change.high:+.4f})"


def _items(task: Task, candidate: Candidate) -> _Items | str:
    """What can be scored; or why nothing can."""
    if candidate.refit is not None:
        rows, what, refits = task.pool, f"out of {NUM_FOLDS} folds", True
    else:
        rows, what, refits = candidate.selection.rows, candidate.selection.what, False
        known = task.labels_N[rows] >= 0
        if known.any() and not _own(candidate):
            return "what the served head says of items that it has not learned from is not known here"
    rows = rows[task.labels_N[rows] >= 0]
    if not len(rows):
        return "there are no labelled images to compare the two graphs on"
    # Copies of one picture tell the same.
    _, first = np.unique(task.groups_N[rows], return_index=True)
    return _Items(rows[np.sort(first)], what, refits)


def _own(candidate: Candidate) -> bool:
    """Whether the predictions that chose the candidate are the served head's own, which then has not seen the items."""
    rows = candidate.selection.rows[:BATCH_SIZE]
    logits_NC = candidate.head.logits(candidate.features(rows))
    known_NC = candidate.selection.logits[: len(rows)]
    return logits_NC.shape == known_NC.shape and bool(np.allclose(logits_NC, known_NC, SAME_LOGITS, SAME_LOGITS))


def _make(task: Task, candidate: Candidate, precision: Second, target: Path) -> tuple[int, Path]:
    """Calibrates on training images, each class in its share; how many there were, and the graph to judge it by."""
    rows = task.train if len(task.train) else task.pool
    labels_N = task.labels_N[rows]
    # Without labels, every n-th of them.
    chosen = rows[stored.spread(labels_N if (labels_N >= 0).all() else np.zeros_like(labels_N), CALIBRATION_IMAGES)]
    shape = candidate.backbone.preprocess
    batches = (images for _, images in features.decoded(task.context, task.index, chosen, shape))
    return len(chosen), MAKERS[precision](candidate.graph, batches, target)


def _features(task: Task, candidate: Candidate, rows: Rows, graph: Path) -> Float:
    """Of one of the graphs, in the order of the rows; all run here, so that only their precision differs."""
    session = Session(graph, task.context.settings.num_compute_threads)
    out: Float | None = None
    place = {int(row): number for number, row in enumerate(rows)}
    for order, images in features.decoded(task.context, task.index, rows, candidate.backbone.preprocess):
        found = session.run(images)[session.output_names.index("features")]
        out = np.empty((len(rows), found.shape[1]), np.float32) if out is None else out
        out[[place[int(row)] for row in order]] = found
        task.context.reporter.check_yield()
    assert out is not None
    return out


def _right(task: Task, rows: Rows, heads: Heads, feats_ND: Float) -> Right:
    """Whether each item is named right from the features of one of the graphs; what is no number names none."""
    labels_N, named_N = task.labels_N[rows], np.empty(len(rows), np.int64)
    for out_N, head in heads:
        named_N[out_N] = head.logits(feats_ND[out_N]).argmax(1)
    right_N: Right = (named_N == labels_N) & np.isfinite(feats_ND).all(1)
    return right_N


def _heads(task: Task, candidate: Candidate, rows: Rows, refits: bool, feats_ND: Float) -> Iterator[tuple[Right, Head]]:
    if not refits or candidate.refit is None:
        yield np.ones(len(rows), np.bool_), candidate.head
        return
    labels_N = task.labels_N[rows]
    folds_N = stratified_group_folds(labels_N, task.groups_N[rows], NUM_FOLDS, task.seed)
    for fold in np.unique(folds_N):
        out_N = folds_N == fold
        yield out_N, candidate.refit(feats_ND[~out_N], labels_N[~out_N])


def _seconds(task: Task, candidate: Candidate, graph: Path) -> dict[str, Any]:
    """How long both graphs take on this machine, in turns, so that whatever else it does slows both alike."""
    shape = candidate.backbone.preprocess
    threads = task.context.settings.num_compute_threads
    found: dict[str, Any] = {"machine": describe()}
    for name, number, cores in (("alone", 1, threads), ("batch", BATCH_SIZE, 1)):
        pixels = np.zeros((number, shape.height, shape.width, 3), np.uint8)
        pair = Session(candidate.graph, cores), Session(graph, cores)
        taken: list[list[float]] = [[], []]
        for _ in range(TIMED_RUNS):
            for session, times in zip(pair, taken, strict=True):
                began = time.perf_counter()
                session.run(pixels)
                times.append(time.perf_counter() - began)
        found[f"latency_ratio_{name}"] = float(np.median(taken[1]) / np.median(taken[0]))
    return found
