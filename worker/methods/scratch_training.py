"""One network that learns from this data alone, until its wall time is over. See `scratch` for which and why.

Shape legend: N items, C classes, S side.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.artifact.preprocess import Preprocess
from worker.backbones import features
from worker.contract.task import Rows, Task
from worker.solvers.logits import softmax
from worker.training import augment, checks, loop, optim
from worker.training.batches import Data, Draws
from worker.training.checks import Check
from worker.training.loop import Plan, Progress, Trainer
from worker.training.optim import Optimisation
from worker.training.untrained import Classifier

MAX_EPOCHS = 300
# Share of the budget kept for looking at the selection data.
TRAIN_SHARE = 0.95


@dataclass(frozen=True)
class Entry:
    """One network of the two, trained.

    Args:
        what: for people.
        name: of its architecture.
        check: on the selection data.
        logits: on the selection data.
        predict: rows -> probabilities.
        details: for the report.
        network: trained, on the CPU.
        shape: of its input.
    """

    what: str
    name: str
    check: Check
    logits: NDArray[np.float64]
    predict: Callable[[Rows], NDArray[np.float64]]
    details: dict[str, Any]
    network: Classifier
    shape: Preprocess


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


def one_cycle(fraction: float) -> float:
    """Up over the first quarter, then half a cosine down to zero."""
    return optim.cosine(min(1.0, 0.02 + 0.98 * fraction), warmup=0.25)


def fit(
    task: Task,
    network: Classifier,
    settings: Optimisation,
    train: Data,
    held: Data,
    shape: Preprocess,
    what: str,
    name: str,
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

    return Entry(what, name, check, logits, predict, details, network, shape)


def _logits(task: Task, network: Classifier, shape: Preprocess, rows: Rows) -> NDArray[np.float64]:
    order = np.argsort(rows)
    out = np.empty((len(rows), task.num_classes))
    network.eval()
    for batch_rows, images in features.decoded(task.context, task.index, rows, shape):
        with torch.no_grad():
            found = network(torch.from_numpy(images)).numpy()
        out[order[np.searchsorted(rows, batch_rows, sorter=order)]] = found
    return out
