"""The honest baseline: networks that learn from this data alone, each within the transfer's own wall time.

Two are trained and the better one, on selection data, counts: a small CNN at the images' native size (at most 64
pixels) and the backbone's architecture from random weights. Where one hold-out is too small to tell a gain from luck,
the better one learns again without each of the others. All get a one-cycle schedule that ends with the time
(Smith and Topin, arXiv 1708.07120), AdamW, and crops that no label minds; no flips, since a mirrored digit is another.

How many steps fit depends on the machine, so two runs differ: with a wall-time budget nothing else is possible. Order,
augmentation and initial weights are seeded.

Shape legend: N items, C classes, S side.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from app.artifact.preprocess import Preprocess
from worker.contract.candidate import Selection
from worker.contract.outcome import Decision, Scratch
from worker.contract.task import Rows, Task
from worker.methods import scratch_served
from worker.methods.scratch_training import TRAIN_SHARE, Entry, ShiftedSource, fit
from worker.scores.intervals import clopper_pearson
from worker.training import inputs, untrained
from worker.training.batches import Data
from worker.training.inputs import ImageSource
from worker.training.optim import Optimisation

MIN_SIDE, MAX_SIDE = 16, 64
# The same network is given a smaller input where its own would leave it fewer epochs than this.
WANTED_EPOCHS = 15
SMALL = Optimisation("adamw", (4e-3,), 32, weight_decay=0.05)
SAME = Optimisation("adamw", (1e-3,), 32, weight_decay=0.05)


def run(task: Task, budget_seconds: float, holdouts: Sequence[Rows], budget: str = "") -> Scratch:
    """Trains both, keeps the better.

    Args:
        task: the data.
        budget_seconds: wall time of each training, decoding included.
        holdouts: to compare on, at least one, disjoint; each is named by a network that learned from the rest of the
            pool. The first one chooses between the two.
        budget: what that time is made of, in words.
    """
    began, first = time.monotonic(), holdouts[0]
    torch.set_num_threads(task.context.settings.num_compute_threads)
    train_rows = np.setdiff1d(task.pool, first)
    small = _small(task, budget_seconds, train_rows, first)
    same = _same(task, budget_seconds, train_rows, first)
    best, again = (small, _small) if isinstance(same, Decision) or _score(small) >= _score(same) else (same, _same)
    named = [(first, best.logits)]
    # One that guesses is not asked again.
    if best.details["epochs"] >= WANTED_EPOCHS or best.check.accuracy > _constant(task.labels_N[first]):
        named += _again(task, budget_seconds, holdouts[1:], again)
    held = np.concatenate([rows for rows, _ in named])
    logits = np.concatenate([logits for _, logits in named])
    unfair = straw_man(task.labels_N[held], logits.argmax(1), best.details["epochs"])
    if unfair:
        task.context.reporter.log(f"baseline from scratch: no verdict over it, {unfair}", "warning")
    skipped = (same,) if isinstance(same, Decision) else ()
    return Scratch(
        what=f"from scratch: {best.what}, {best.details['epochs']:.1f} epochs in {best.details['seconds']:.1f} s",
        selection=Selection(held, logits, "hold-out of 20 %" if len(named) == 1 else f"{len(named)} hold-outs of 20 %"),
        predict=best.predict,
        seconds=time.monotonic() - began,
        num_learned=len(train_rows),
        details={
            "budget_seconds": budget_seconds,
            "budget": budget,
            "num_holdouts": len(named),
            "holdout_accuracies": [float((logits.argmax(1) == task.labels_N[rows]).mean()) for rows, logits in named],
            "small_cnn": small.details,
            "same_network": {"what": same.step, "epochs": 0, "skipped": same.reason}
            if isinstance(same, Decision)
            else same.details,
        },
        unfair=unfair,
        hurried=None if task.context.reporter.stop_requested else hurried(best.what, best.details["epochs"]),
        skipped=skipped,
        serve=lambda: scratch_served.candidate(task, best, first),
    )


def _again(
    task: Task,
    budget_seconds: float,
    holdouts: Sequence[Rows],
    train: Callable[[Task, float, Rows, Rows], Entry | Decision],
) -> Iterator[tuple[Rows, NDArray[np.float64]]]:
    """What the same kind of network says of more hold-outs, each without having seen it; ends when asked to stop."""
    for rows in holdouts:
        entry = train(task, budget_seconds, np.setdiff1d(task.pool, rows), rows)
        # A network that was stopped, or not begun, would flatter the transfer.
        if isinstance(entry, Decision) or task.context.reporter.stop_requested:
            return
        yield rows, entry.logits


def hurried(what: str, num_epochs: float) -> str | None:
    """That a network ended with its time and not with its training; None where it had the epochs that it wanted."""
    if num_epochs >= WANTED_EPOCHS:
        return None
    return (
        f"the network from scratch ({what}) had time for {num_epochs:.1f} epochs and wanted {WANTED_EPOCHS} at least: "
        "a verdict over it says which is better in this time, not what these labels allow without pretraining"
    )


def straw_man(labels_S: NDArray[np.int64], predicted_S: NDArray[np.int64], num_epochs: float) -> str | None:
    """Why a network is no baseline: stopped early, and not clearly better than always naming the largest class.

    A network that had its epochs and still guesses is one: then the data allow no more. Clearly is by the exact 95 %
    interval of its accuracy: one that chance may have lifted has learned nothing that a gain could be held against.

    Args:
        labels_S: of everything that was held out.
        predicted_S: what it named.
        num_epochs: that it had.

    Shape:
        labels_S, predicted_S: [S]
    """
    if num_epochs >= WANTED_EPOCHS:
        return None
    num, num_right, constant = len(labels_S), int((predicted_S == labels_S).sum()), _constant(labels_S)
    low, high = clopper_pearson(num_right, num)
    if low > constant:
        return None
    return (
        f"after {num_epochs:.1f} epochs, all that its time allowed, the network from scratch names "
        f"{num_right / num:.3f} ({low:.3f} to {high:.3f}) of the {num} that were held out right, and the largest class "
        f"alone is {constant:.3f} of them"
    )


def _constant(labels_S: NDArray[np.int64]) -> float:
    """What always naming the largest class has right."""
    return float(np.bincount(labels_S).max() / len(labels_S))


def native_side(task: Task, rows: Rows) -> int:
    """The images' usual shorter side in pixels, within what the small network is made for."""
    shorter = np.minimum(task.index.width[rows], task.index.height[rows])
    return int(np.clip(np.median(shorter), MIN_SIDE, MAX_SIDE))


def _score(entry: Entry) -> tuple[float, float]:
    return entry.check.accuracy, -entry.check.loss


def _small(task: Task, budget_seconds: float, train_rows: Rows, selection_rows: Rows) -> Entry:
    began = time.monotonic()
    side = native_side(task, train_rows)
    network, shape = untrained.small(task, side)
    train, held = _decoded(task, train_rows, shape), _decoded(task, selection_rows, shape)
    return fit(
        task,
        network,
        SMALL,
        Data(ShiftedSource(train), task.labels_N[train_rows]),
        Data(ShiftedSource(held), task.labels_N[selection_rows]),
        shape,
        f"small CNN at {side} px",
        "small_cnn",
        (began, budget_seconds),
    )


def _same(task: Task, budget_seconds: float, train_rows: Rows, selection_rows: Rows) -> Entry | Decision:
    """The backbone's architecture from random weights; that it was skipped where not even one epoch fits."""
    began = time.monotonic()
    what = f"{task.backbone.architecture} from random weights"
    sides = untrained.sides(task)
    seconds = untrained.seconds_per_image(task, sides[-1])
    left = TRAIN_SHARE * budget_seconds - (time.monotonic() - began)
    side = next(
        (side for side in sides if _epochs(left, seconds, side / sides[-1], train_rows) >= WANTED_EPOCHS), sides[-1]
    )
    epochs = _epochs(left, seconds, side / sides[-1], train_rows)
    if epochs < 1:
        skipped = f"one epoch at {side} px would take {seconds * len(train_rows):.1f} s; {left:.1f} s are left"
        decision = Decision(
            f"baseline {what}", "skipped", skipped, forecast_seconds=round(seconds * len(train_rows), 2)
        )
        task.context.reporter.log(f"{decision.step}: skipped, {skipped}", "warning", **asdict(decision))
        return decision
    shape = untrained.at_side(task.backbone.preprocess, side)
    train, held = _decoded(task, train_rows, shape), _decoded(task, selection_rows, shape)
    network = untrained.architecture(task, shape)
    with ThreadPoolExecutor(task.context.settings.num_compute_threads, thread_name_prefix="augment") as threads:
        return fit(
            task,
            network,
            SAME,
            Data(ImageSource(train, shape, False, threads), task.labels_N[train_rows]),
            Data(ImageSource(held, shape, False, threads), task.labels_N[selection_rows]),
            shape,
            f"{what} at {side} px",
            task.backbone.architecture,
            (began, budget_seconds),
        )


def _decoded(task: Task, rows: Rows, shape: Preprocess) -> NDArray[np.uint8]:
    return inputs.decode_all(task.context, task.index, rows, shape, ("baseline from scratch", 0.86, 0.87))


def _epochs(left_seconds: float, seconds_per_image: float, scale: float, rows: Rows) -> float:
    """Epochs that fit, when an image costs as many times more as it has more pixels."""
    return left_seconds / (seconds_per_image * scale**2 * len(rows))
