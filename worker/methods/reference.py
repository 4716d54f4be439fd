"""What a transfer is compared with: the frozen probe, and a network from scratch with the same time.

A straw man would make the gain a lie, so the network from scratch gets the transfer's whole wall time, the extraction
of its features included, even where this job found them in the cache.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np

from app.recipes import LinearProbe
from worker.attempt.context import never
from worker.attempt.progress import Reporter
from worker.backbones import features
from worker.backbones.extraction import TIMED_IMAGES, Extraction
from worker.backbones.features import Extractor
from worker.backbones.prepared import Prepared
from worker.contract.candidate import Candidate
from worker.contract.outcome import Decision, Scratch
from worker.contract.task import Rows, Task
from worker.methods import linear_probe
from worker.solvers.folds import stratified_group_folds, stratified_group_holdout

HOLDOUT = 0.2
# Thirty items tell a gain of twenty points from luck only now and then, a hundred nearly always: a smaller hold-out is
# followed by others, each under a training of its own (docs/decisions/0019).
MIN_COMPARED = 100
# Each of the two has at least so long, however soon the transfer ended: opening torch and the first steps take a second
# or two, and a network that was stopped in them says nothing of what the data allow (docs/decisions/0019).
MIN_SECONDS = 5.0
TORCH_SECONDS = 6.0
# Why a transfer is served that is worse than a baseline, where the recipe could fall back.
FALLBACK_OFF = "`fallback` of the recipe is off"
ASKED_TO_STOP = "the job was asked to stop, and a baseline that was cut short would flatter the transfer"


def fit_seconds(num_rows: int, feature_dim: int, num_classes: int) -> float:
    """What a logistic regression at one strength takes, on two busy cores (docs/auto.md)."""
    return 0.1 + feature_dim / 1280 * num_rows * (3e-4 + 1.3e-5 * num_classes)


def starts(reporter: Reporter, step: str, forecast: float) -> None:
    """Tells what a step is expected to take, before it begins."""
    reporter.log(f"{step}: starts, expected to take {forecast:.1f} s", step=step, forecast_seconds=round(forecast, 2))


def frozen(task: Task, candidate: Candidate) -> Candidate:
    """The linear probe on the candidate's backbone; the candidate itself where it is one."""
    if candidate.method == "linear_probe":
        return candidate
    return linear_probe.run(LinearProbe(), task)


def scratch(
    task: Task,
    compared: Rows,
    transfer_seconds: float,
    own_seconds: float,
    by_seconds: float | None = None,
    kept_seconds: float = 0.0,
) -> Scratch | Decision:
    """A network from scratch, trained on the same split within the transfer's wall time.

    Args:
        task: the data without the test split.
        compared: rows on which the transfer says something without having seen them.
        transfer_seconds: that the transfer took in its job.
        own_seconds: that it would have taken had nothing been cached, see `wall_seconds`.
        by_seconds: when it must have ended, from the job's beginning; None where nobody waits.
        kept_seconds: of that time, not for more hold-outs.

    Returns:
        the baseline, or why it was skipped: less time for it than for the transfer would be a straw man.
    """
    seconds = max(MIN_SECONDS, own_seconds)
    each = allowance(transfer_seconds, own_seconds)
    forecast, wanted = forecast_scratch(seconds), holdouts(task, compared)
    reporter = task.context.reporter
    reason = ""
    if by_seconds is not None and reporter.elapsed_seconds + forecast > by_seconds:
        left = max(0.0, by_seconds - reporter.elapsed_seconds)
        reason = (
            f"its forecast of {forecast:.1f} s (two networks of {each}, and {TORCH_SECONDS:.0f} s to begin) does not "
            f"fit the {left:.1f} s that are left"
        )
    elif not wanted:
        reason = "there are too few images to hold some out"
    if reason or reporter.stop_requested:
        return _skip(task, reason or ASKED_TO_STOP, forecast)
    from worker.methods import scratch as networks

    # Where others have the machine, opening torch takes ten times as long.
    if by_seconds is not None and reporter.elapsed_seconds + 2 * seconds > by_seconds:
        return _skip(task, "opening torch took the time that the budget had left for it")
    # Whether they fit is decided before anything is known of the first.
    left = math.inf if by_seconds is None else by_seconds - reporter.elapsed_seconds - 2 * seconds - kept_seconds
    taken = wanted[: 1 + int(min(max(0.0, left) / seconds, len(wanted)))]
    reporter.log(
        f"baseline from scratch: a small CNN and {task.backbone.architecture} from random weights, each "
        f"with {each} at most; compared on {len(taken)} of {len(wanted)} hold-outs of {len(wanted[0])} images",
        seconds=round(seconds, 2),
        num_holdouts=len(taken),
    )
    found = networks.run(task, seconds, taken, each)
    return _skip(task, ASKED_TO_STOP) if reporter.stop_requested else found


def allowance(transfer_seconds: float, own_seconds: float) -> str:
    """What a network's time is made of, for whoever looks for it beside the transfer's own.

    Args:
        transfer_seconds: that the transfer took in this job.
        own_seconds: that it would have taken had none of its features been cached.
    """
    cached = own_seconds - transfer_seconds
    if own_seconds < MIN_SECONDS:
        return f"{MIN_SECONDS:.1f} s, the least that one has (the transfer's was {own_seconds:.1f} s)"
    if cached < 0.05:
        return f"{own_seconds:.1f} s, as the transfer had"
    return (
        f"{own_seconds:.1f} s ({transfer_seconds:.1f} s that the transfer took, and {cached:.1f} s that its cached "
        "features would have taken)"
    )


def _skip(task: Task, reason: str, forecast: float | None = None) -> Decision:
    decision = Decision("baseline from scratch", "skipped", reason, forecast_seconds=forecast and round(forecast, 2))
    task.context.reporter.log(f"{decision.step}: skipped, {reason}", "warning", **asdict(decision))
    return decision


def forecast_scratch(seconds: float) -> float:
    """What the baseline from scratch will take when each of its two networks gets this many seconds."""
    return 2 * max(MIN_SECONDS, seconds) + TORCH_SECONDS


def holdout(task: Task) -> Rows:
    """Rows on which methods are compared that cannot be cross-validated in the time: a fifth of the pool."""
    mask = stratified_group_holdout(task.labels_N[task.pool], task.groups_N[task.pool], HOLDOUT, task.seed)
    return task.pool[mask]


def holdouts(task: Task, compared: Rows) -> list[Rows]:
    """What a network from scratch is compared on: `holdout`, and as many more as make a gain of some points visible.

    Args:
        task: the data.
        compared: rows on which the transfer says something without having seen them; only these can be compared.

    Returns:
        disjoint rows, none where there are too few images to hold some out.
    """
    first = holdout(task)
    rest = np.setdiff1d(task.pool, first)
    if not len(first):
        return []
    num_more = min(round(1 / HOLDOUT), math.ceil(MIN_COMPARED / len(first))) - 1
    labels_R, groups_R = task.labels_N[rest], task.groups_N[rest]
    num_parts = round(1 / HOLDOUT) - 1
    if not num_more or not np.isin(rest, compared).all() or len(np.unique(groups_R)) < num_parts:
        return [first]
    part_R = stratified_group_folds(labels_R, groups_R, num_parts, task.seed)
    return [first, *(rest[part_R == part] for part in range(num_more))]


def wall_seconds(
    task: Task, seconds: float, extraction: Extraction | None, image_seconds: float | None = None
) -> float:
    """What a transfer took, or would have taken had nothing been cached.

    Args:
        task: the data.
        seconds: that it took in its job.
        extraction: of its features.
        image_seconds: of its backbone, where they are known; else of the extraction, or timed.
    """
    if extraction is None or not extraction.num_cached:
        return seconds
    return seconds + extraction.num_cached * (image_seconds or extraction.image_seconds or seconds_per_image(task))


def seconds_per_image(
    task: Task,
    backbone: Prepared | None = None,
    rows: Rows | None = None,
    run: Callable[[], Extractor] | None = None,
    kept: Callable[[Extraction], None] = lambda _: None,
) -> float:
    """Decode and forward, measured on a few images; features that nobody had yet are kept.

    Args:
        task: the data.
        backbone: with the input size that is wanted; the task's own by default.
        rows: of the images; the first ones that may be learned from by default.
        run: opens what passes images of that size; by default the backbone's own extractor.
        kept: told of features that nobody had yet.
    """
    context, backbone = task.context, backbone or task.backbone
    rows = task.pool[:TIMED_IMAGES] if rows is None else rows
    opened = run() if run else features.open_extractor(context, backbone)
    is_pooled = context.device == "cpu" and backbone.preprocess == task.backbone.preprocess
    if is_pooled and features.num_missing(context, task.index, rows, backbone) == len(rows):
        whole = replace(context, leaves=never)
        found = features.pooled(whole, task.index, rows, backbone, ("time", 0.05, 0.05), lambda: opened)[1]
        kept(found)
        return found.seconds / max(1, found.num_extracted)
    if context.device != "cpu":
        # A GPU's first batch pays for choosing kernels.
        opened(next(features.decoded(context, task.index, rows, backbone.preprocess))[1])
    began = time.monotonic()
    for _, images in features.decoded(context, task.index, rows, backbone.preprocess):
        opened(images)
    return (time.monotonic() - began) / len(rows)
