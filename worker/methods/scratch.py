"""The honest baseline: networks that learn from this data alone, each within the transfer's own wall time.

Two are trained and the better one, on selection data, counts: a small CNN at the images' native size (at most 64
pixels) and the backbone's architecture from random weights. Both get a one-cycle schedule that ends with the time
(Smith and Topin, arXiv 1708.07120), AdamW, and crops that no label minds; no flips, since a mirrored digit is another.

How many steps fit depends on the machine, so two runs differ: with a wall-time budget nothing else is possible. Order,
augmentation and initial weights are seeded.

Shape legend: N items, C classes, S side.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.artifact.preprocess import Preprocess
from worker.backbones import features
from worker.contract.outcome import Decision, Scratch, Selection
from worker.contract.task import Rows, Task
from worker.solvers.logits import softmax
from worker.training import augment, checks, inputs, loop, optim, untrained
from worker.training.batches import Data, Draws
from worker.training.checks import Check
from worker.training.inputs import ImageSource
from worker.training.loop import Plan, Progress, Trainer
from worker.training.optim import Optimisation
from worker.training.untrained import Classifier

MIN_SIDE, MAX_SIDE = 16, 64
MAX_EPOCHS = 300
# The same network is given a smaller input where its own would leave it fewer epochs than this.
WANTED_EPOCHS = 15
SMALL = Optimisation("adamw", (4e-3,), 32, weight_decay=0.05)
SAME = Optimisation("adamw", (1e-3,), 32, weight_decay=0.05)
# Share of the budget kept for looking at the selection data.
TRAIN_SHARE = 0.95


@dataclass(frozen=True)
class Entry:
    """One network of the two, trained.

    Args:
        what: for people.
        check: on the selection data.
        logits: on the selection data.
        predict: rows -> probabilities.
        details: for the report.
    """

    what: str
    check: Check
    logits: NDArray[np.float64]
    predict: Callable[[Rows], NDArray[np.float64]]
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShiftedSource:
    """Small decoded images in memory, moved by a few pixels.

    Shape:
        images_NSS3: [N, S, S, 3] uint8
    """

    images_NSS3: NDArray[np.uint8]

    def take(self, items_B: Rows, draws_B: Draws | None) -> Tensor:
        """See loop.Source."""
        images = self.images_NSS3[items_B]
        return torch.from_numpy(images if draws_B is None else augment.shifted(images, draws_B))


def run(task: Task, budget_seconds: float, train_rows: Rows, selection_rows: Rows) -> Scratch:
    """Trains both, keeps the better.

    Args:
        task: the data.
        budget_seconds: wall time of each of the two, decoding included.
        train_rows: to learn from.
        selection_rows: to compare on.
    """
    began = time.monotonic()
    torch.set_num_threads(task.context.settings.num_compute_threads)
    small = _small(task, budget_seconds, train_rows, selection_rows)
    same = _same(task, budget_seconds, train_rows, selection_rows)
    best = small if isinstance(same, Decision) or _score(small) >= _score(same) else same
    unfair = straw_man(best.check.accuracy, best.details["epochs"], task.labels_N[selection_rows])
    if unfair:
        task.context.reporter.log(f"baseline from scratch: no verdict over it, {unfair}", "warning")
    skipped = (same,) if isinstance(same, Decision) else ()
    return Scratch(
        what=f"from scratch: {best.what}, {best.details['epochs']:.1f} epochs in {best.details['seconds']:.1f} s",
        selection=Selection(selection_rows, best.logits, "hold-out of 20 %"),
        predict=best.predict,
        seconds=time.monotonic() - began,
        details={
            "budget_seconds": budget_seconds,
            "small_cnn": small.details,
            "same_network": {"what": same.step, "epochs": 0, "skipped": same.reason}
            if isinstance(same, Decision)
            else same.details,
        },
        unfair=unfair,
        hurried=None if task.context.reporter.stop_requested else hurried(best.what, best.details["epochs"]),
        skipped=skipped,
    )


def hurried(what: str, num_epochs: float) -> str | None:
    """That a network ended with its time and not with its training; None where it had the epochs that it wanted."""
    if num_epochs >= WANTED_EPOCHS:
        return None
    return (
        f"the network from scratch ({what}) had time for {num_epochs:.1f} epochs and wanted {WANTED_EPOCHS} at least: "
        "a verdict over it says which is better in this time, not what these labels allow without pretraining"
    )


def straw_man(accuracy: float, num_epochs: float, labels_S: NDArray[np.int64]) -> str | None:
    """Why a network is no baseline: stopped early, and no better than always naming the largest class.

    A network that had its epochs and still guesses is one: then the data allow no more.

    Shape:
        labels_S: [S], of the selection data.
    """
    constant = float(np.bincount(labels_S).max() / len(labels_S))
    if num_epochs >= WANTED_EPOCHS or accuracy > constant:
        return None
    return (
        f"after {num_epochs:.1f} epochs, all that its time allowed, the network from scratch names {accuracy:.3f} of "
        f"the hold-out right and the largest class alone is {constant:.3f} of it"
    )


def native_side(task: Task, rows: Rows) -> int:
    """The images' usual shorter side in pixels, within what the small network is made for."""
    shorter = np.minimum(task.index.width[rows], task.index.height[rows])
    return int(np.clip(np.median(shorter), MIN_SIDE, MAX_SIDE))


def one_cycle(fraction: float) -> float:
    """Up over the first quarter, then half a cosine down to zero."""
    return optim.cosine(min(1.0, 0.02 + 0.98 * fraction), warmup=0.25)


def _score(entry: Entry) -> tuple[float, float]:
    return entry.check.accuracy, -entry.check.loss


def _small(task: Task, budget_seconds: float, train_rows: Rows, selection_rows: Rows) -> Entry:
    began = time.monotonic()
    side = native_side(task, train_rows)
    network, shape = untrained.small(task, side)
    train, held = _decoded(task, train_rows, shape), _decoded(task, selection_rows, shape)
    return _fit(
        task,
        network,
        SMALL,
        Data(ShiftedSource(train), task.labels_N[train_rows]),
        Data(ShiftedSource(held), task.labels_N[selection_rows]),
        shape,
        f"small CNN at {side} px",
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
        return _fit(
            task,
            network,
            SAME,
            Data(ImageSource(train, shape, False, threads), task.labels_N[train_rows]),
            Data(ImageSource(held, shape, False, threads), task.labels_N[selection_rows]),
            shape,
            f"{what} at {side} px",
            (began, budget_seconds),
        )


def _fit(
    task: Task,
    network: Classifier,
    settings: Optimisation,
    train: Data,
    held: Data,
    shape: Preprocess,
    what: str,
    budget: tuple[float, float],
) -> Entry:
    """Trains until the time is over, then looks at the selection data once."""
    began, budget_seconds = budget
    reporter, device = task.context.reporter, task.context.device
    network.to(device).to(memory_format=torch.channels_last)
    trainable = dict(network.named_parameters())
    trainer = Trainer(
        network, optim.build(settings, trainable.values(), {}, settings.rates[0]), trainable, device, network
    )
    batch_size, progress = optim.batch_size(len(train), settings.batch_size), Progress()
    num_steps = MAX_EPOCHS * math.ceil(len(train) / batch_size)

    def fraction() -> float:
        spent = (time.monotonic() - began) / (TRAIN_SHARE * budget_seconds)
        return min(1.0, max(spent, progress.step / num_steps))

    def after_step() -> bool:
        reporter.check_yield()
        reporter.progress(0.88, f"baseline {what}", round(max(0.0, began + budget_seconds - time.monotonic()), 1))
        return fraction() >= 1 or reporter.stop_requested

    plan = Plan(
        epochs=MAX_EPOCHS,
        batch_size=batch_size,
        seed=task.seed,
        clip=1.0,
        schedule=one_cycle,
        fraction=fraction,
        is_training=True,
        checks=False,
    )
    loop.train(
        trainer, train, held, plan, progress, after_step, lambda _: None, lambda text: reporter.log(text, "warning")
    )
    logits = loop.predict(trainer, held)
    check = checks.check(logits, held.labels_N, progress.epoch)
    seconds = time.monotonic() - began
    num_epochs = progress.epoch + progress.num_seen / len(train)
    details = {
        "what": what,
        "epochs": round(num_epochs, 2),
        "steps": progress.step,
        "selection_accuracy": check.accuracy,
        "selection_loss": check.loss,
        "seconds": round(seconds, 3),
        "images_per_second": round(num_epochs * len(train) / seconds, 1),
    }
    reporter.log(
        f"baseline {what}: accuracy {check.accuracy:.3f} on the hold-out after {num_epochs:.1f} epochs", **details
    )
    network.cpu()

    def predict(rows: Rows) -> NDArray[np.float64]:
        return np.asarray(softmax(_logits(task, network, shape, rows)), np.float64)

    return Entry(what, check, logits, predict, details)


def _logits(task: Task, network: Classifier, shape: Preprocess, rows: Rows) -> NDArray[np.float64]:
    order = np.argsort(rows)
    out = np.empty((len(rows), task.num_classes))
    network.eval()
    for batch_rows, images in features.decoded(task.context, task.index, rows, shape):
        with torch.no_grad():
            found = network(torch.from_numpy(images)).numpy()
        out[order[np.searchsorted(rows, batch_rows, sorter=order)]] = found
    return out


def _decoded(task: Task, rows: Rows, shape: Preprocess) -> NDArray[np.uint8]:
    return inputs.decode_all(task.context, task.index, rows, shape, ("baseline from scratch", 0.86, 0.87))


def _epochs(left_seconds: float, seconds_per_image: float, scale: float, rows: Rows) -> float:
    """Epochs that fit, when an image costs as many times more as it has more pixels."""
    return left_seconds / (seconds_per_image * scale**2 * len(rows))
