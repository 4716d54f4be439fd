"""What a transfer is compared with: the frozen probe, and a network from scratch with the same time.

A straw man would make the gain a lie, so the network from scratch gets the transfer's whole wall time, the extraction
of its features included, even where this job found them in the cache.
"""

import time

import numpy as np

from app.recipes import LinearProbe
from worker import features
from worker.methods import linear_probe
from worker.methods.contract import Candidate, Rows, Scratch, Task
from worker.solvers.folds import stratified_group_holdout

HOLDOUT = 0.2
TIMED_IMAGES = 32
MIN_SECONDS = 1.0
TORCH_SECONDS = 6.0
# A time budget may be overrun by this much; better a late baseline than none.
SLACK_SECONDS = 25.0


def frozen(task: Task, candidate: Candidate) -> Candidate:
    """The linear probe on the candidate's backbone; the candidate itself where it is one."""
    if candidate.method == "linear_probe":
        return candidate
    return linear_probe.run(LinearProbe(), task)


def scratch(task: Task, candidate: Candidate, limit_seconds: float | None) -> Scratch | None:
    """A network from scratch, trained on the same split within the transfer's wall time.

    Returns:
        None where its forecast does not fit the limit: less time for it than for the transfer would be a straw man.
    """
    seconds = max(MIN_SECONDS, wall_seconds(task, candidate))
    elapsed = task.context.reporter.elapsed_seconds
    if limit_seconds is not None and elapsed + forecast_scratch(seconds) > limit_seconds + SLACK_SECONDS:
        task.context.reporter.log(
            f"baseline from scratch: skipped, its forecast of {forecast_scratch(seconds):.0f} s does not fit", "warning"
        )
        return None
    selection = holdout(task)
    if not len(selection):
        task.context.reporter.log("baseline from scratch: skipped, too few images to hold some out", "warning")
    if not len(selection) or _stopped(task):
        return None
    from worker.methods import scratch as networks

    train = np.setdiff1d(task.pool, selection)
    task.context.reporter.log(f"baseline from scratch: two networks, {seconds:.1f} s each", seconds=round(seconds, 2))
    found = networks.run(task, seconds, train, selection)
    return None if _stopped(task) else found


def _stopped(task: Task) -> bool:
    """A user who asks for the best so far gets no baseline: one that was cut short would flatter the transfer."""
    if task.context.reporter.stop_requested:
        task.context.reporter.log("baseline from scratch: skipped, the job was asked to stop", "warning")
    return task.context.reporter.stop_requested


def forecast_scratch(seconds: float) -> float:
    """What the baseline from scratch will take when each of its two networks gets this many seconds."""
    return 2 * max(MIN_SECONDS, seconds) + TORCH_SECONDS


def holdout(task: Task) -> Rows:
    """Rows on which methods are compared that cannot be cross-validated in the time: a fifth of the pool."""
    mask = stratified_group_holdout(task.labels_N[task.pool], task.groups_N[task.pool], HOLDOUT, task.seed)
    return task.pool[mask]


def wall_seconds(task: Task, candidate: Candidate) -> float:
    """What the transfer took, or would have taken had nothing been cached."""
    extraction = candidate.extraction
    if extraction is None or not extraction.num_cached:
        return candidate.seconds
    return candidate.seconds + extraction.num_cached * seconds_per_image(task)


def seconds_per_image(task: Task) -> float:
    """Decode and forward, measured on a few images."""
    rows = task.pool[:TIMED_IMAGES]
    extractor = features.open_extractor(task.context, task.backbone)
    began = time.monotonic()
    for _, images in features.decoded(task.context, task.index, rows, task.backbone.preprocess):
        extractor(images)
    return (time.monotonic() - began) / len(rows)
