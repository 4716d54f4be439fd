"""The features that a job with a limit begins with: of all images, or of as many as the time holds. Torch-free."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worker.backbones.extraction import NOTHING, Extraction
from worker.backbones.prepared import Prepared
from worker.contract import excerpt
from worker.contract.excerpt import Excerpt, Order
from worker.contract.task import Rows, Task
from worker.methods.clock import Clock
from worker.methods.reference import fit_seconds

# Fits on the features of each image: the head that is served, what it is compared with, the forecast.
NUM_FITS = 3
STEP = "features of all images"


@dataclass(frozen=True)
class Wanted:
    """Features of one backbone.

    Args:
        backbone: with the input size of the features.
        extract: features of rows into the cache.
        num_missing: how many of some rows are not in it.
        scored: rows of the test split.
        passes: of an image through the backbone before anything is learned.
        kept_seconds: by an image's seconds, what else the time has to hold.
    """

    backbone: Prepared
    extract: Callable[[Rows], Extraction]
    num_missing: Callable[[Rows], int]
    scored: Rows
    passes: float = 1.0
    kept_seconds: Callable[[float], float] = lambda _: 0.0


@dataclass(frozen=True)
class Gathered:
    """What came of it.

    Args:
        part: what there was time for; None where that is all.
        num_rows: of the order of `excerpt`, from its beginning.
        extraction: what it took.
    """

    part: Excerpt | None
    num_rows: int
    extraction: Extraction


def gather(
    clock: Clock,
    task: Task,
    wanted: Wanted,
    *,
    first_by: float = float("inf"),
    num_rows: int | None = None,
    hears_stop: bool = False,
) -> Gathered:
    """Extracts in rounds, each of which stands for the whole dataset, while the next one fits the time.

    A job that is carried out again takes the very images of the first one, whatever its own time holds.

    Args:
        clock: of the job.
        task: the data, watched by the clock.
        wanted: the features.
        first_by: when the first round is left, from the job's beginning; without its fewest there is nothing.
        num_rows: of the order, where an earlier attempt has begun with so many.
        hears_stop: whether a stop ends it once there is an excerpt.

    Raises:
        Left: the fewest of the first round were.
    """
    ordered = order(task, wanted.scored)
    if task.recorded is not None:
        rows = np.union1d(task.recorded.pool, task.recorded.scored)
        found = wanted.extract(rows)
        clock.learn_pace(wanted.backbone, found)
        part = _part(clock, task, rows, wanted.scored, excerpt.RECORDED)
        return Gathered(part, len(rows), clock.counted(wanted.backbone, found))

    def extract(rows: Rows, is_first: bool) -> Extraction:
        until = first_by if is_first else clock.limit_seconds - clock.finish_seconds
        with clock.leaving(until, hears_stop=hears_stop and not is_first):
            return wanted.extract(rows)

    def num_fitting(pace: float) -> float:
        if hears_stop and clock.stop_requested:
            return 0.0
        pace = pace or clock.pace(task, wanted.backbone)
        fit = clock.slowness * NUM_FITS * fit_seconds(1000, wanted.backbone.feature_dim, task.num_classes) / 1000
        left = clock.left_seconds - clock.finish_seconds - wanted.kept_seconds(pace)
        return left / (wanted.passes * pace + fit)

    if num_rows is None:
        num_rows, extractions = excerpt.grow(ordered, task.groups_N, extract, wanted.num_missing, num_fitting)
    else:
        extractions = [extract(ordered.rows[:num_rows], True)]
    total = sum(extractions, NOTHING)
    clock.learn_pace(wanted.backbone, total)
    total = clock.counted(wanted.backbone, total)
    why = excerpt.STOPPED if hears_stop and clock.stop_requested else excerpt.NO_TIME
    return Gathered(_part(clock, task, ordered.rows[:num_rows], wanted.scored, why), num_rows, total)


def order(task: Task, scored: Rows) -> Order:
    """All rows in the order in which they are gathered."""
    return excerpt.order(task.labels_N, task.groups_N, task.pool, scored, task.seed)


def _part(clock: Clock, task: Task, rows: Rows, scored: Rows, why: str) -> Excerpt | None:
    """What some rows are an excerpt of; None where they are all."""
    part = excerpt.chosen(rows, task, scored, why)
    if part.is_all:
        return None
    clock.skip(STEP, str(part))
    return part
