"""What a transfer is compared with: the frozen probe, and a network from scratch with the same time.

A straw man would make the gain a lie, so the network from scratch gets the transfer's whole wall time, the extraction
of its features included, even where this job found them in the cache.
"""

import time
from dataclasses import asdict

import numpy as np

from app.artifact.preprocess import Preprocess
from app.recipes import LinearProbe
from worker.attempt.progress import Reporter
from worker.backbones import features
from worker.backbones.features import Extractor
from worker.contract.outcome import Candidate, Decision, Scratch
from worker.contract.task import Rows, Task
from worker.methods import linear_probe
from worker.solvers.folds import stratified_group_holdout

HOLDOUT = 0.2
TIMED_IMAGES = 32
# Each of the two has at least so long, however soon the transfer ended: opening torch and the first steps take a second
# or two, and a network that was stopped in them says nothing of what the data allow (docs/decisions/0019).
MIN_SECONDS = 5.0
TORCH_SECONDS = 6.0
# What is needed for any result may overrun a time budget by this much. A baseline may not: it starts only if its
# forecast fits the budget itself, like every other step.
SLACK_SECONDS = 25.0
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


def scratch(task: Task, candidate: Candidate, by_seconds: float | None) -> Scratch | Decision:
    """A network from scratch, trained on the same split within the transfer's wall time.

    Args:
        task: the data without the test split.
        candidate: what it is compared with.
        by_seconds: when it must have ended, from the job's beginning; None where nobody waits.

    Returns:
        the baseline, or why it was skipped: less time for it than for the transfer would be a straw man.
    """
    seconds = max(MIN_SECONDS, wall_seconds(task, candidate))
    forecast, selection = forecast_scratch(seconds), holdout(task)
    reporter = task.context.reporter
    reason = ""
    if by_seconds is not None and reporter.elapsed_seconds + forecast > by_seconds:
        left = max(0.0, by_seconds - reporter.elapsed_seconds)
        reason = (
            f"its forecast of {forecast:.1f} s (two networks, {seconds:.1f} s each as the transfer "
            f"had, and {TORCH_SECONDS:.0f} s to begin) does not fit the {left:.1f} s that are left"
        )
    elif not len(selection):
        reason = "there are too few images to hold some out"
    if reason or reporter.stop_requested:
        return _skip(task, reason or ASKED_TO_STOP, forecast)
    from worker.methods import scratch as networks

    # Where others have the machine, opening torch takes ten times as long.
    if by_seconds is not None and reporter.elapsed_seconds + 2 * seconds > by_seconds:
        return _skip(task, "opening torch took the time that the budget had left for it")
    train = np.setdiff1d(task.pool, selection)
    reporter.log(
        f"baseline from scratch: a small CNN and {task.backbone.architecture} from random weights, at most "
        f"{seconds:.1f} s each",
        seconds=round(seconds, 2),
    )
    found = networks.run(task, seconds, train, selection)
    return _skip(task, ASKED_TO_STOP) if reporter.stop_requested else found


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


def wall_seconds(task: Task, candidate: Candidate) -> float:
    """What the transfer took, or would have taken had nothing been cached."""
    extraction = candidate.extraction
    if extraction is None or not extraction.num_cached:
        return candidate.seconds
    return candidate.seconds + extraction.num_cached * seconds_per_image(task)


def seconds_per_image(task: Task, shape: Preprocess | None = None, run: Extractor | None = None) -> float:
    """Decode and forward, measured on a few images.

    Args:
        task: the data.
        shape: of the input; the backbone's own by default.
        run: what passes images of that shape; the backbone's own extractor by default.
    """
    rows = task.pool[:TIMED_IMAGES]
    run = run or features.open_extractor(task.context, task.backbone)
    began = time.monotonic()
    for _, images in features.decoded(task.context, task.index, rows, shape or task.backbone.preprocess):
        run(images)
    return (time.monotonic() - began) / len(rows)
