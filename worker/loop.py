"""The one training loop: gradient steps, a check after every epoch, the best state kept, early stopping.

It knows nothing of jobs. Whoever calls it gives two functions: `after_step`, which may end the run, and `after_epoch`,
which hears the numbers. Everything random is decided by (seed, epoch, item), so a state that was saved between two
steps continues bit for bit on the same device and thread count.

Shape legend: N items, B of a batch, C classes.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from app.errors import JobFailure
from worker import optim
from worker.batches import Data, epoch_batches, epoch_order
from worker.losses import cross_entropy

ASKED = "asked to end"
EVALUATION_BATCH = 64
# Reading a loss waits for the device; a GPU is asked only so often.
CUDA_CHECK_STEPS = 25


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much at a time, and by what schedule.

    Args:
        epochs: passes over the training items.
        batch_size: items of one step.
        seed: of order and augmentation.
        clip: largest norm of the gradient.
        patience: epochs without a better check after which the run ends; None never.
        schedule: factor on the learning rate at a finished fraction of the run.
        fraction: the finished fraction of a run that time bounds; by default the share of the planned steps.
        is_training: whether batch norm uses and moves batch statistics; frozen ones otherwise.
        checks: whether every epoch ends with a check on the held-out items.
    """

    epochs: int
    batch_size: int
    seed: int
    clip: float | None = None
    patience: int | None = None
    schedule: Callable[[float], float] = optim.cosine
    fraction: Callable[[], float] | None = None
    is_training: bool = False
    checks: bool = True


@dataclass(frozen=True, slots=True)
class Check:
    """Numbers of one look at held-out items."""

    epoch: int
    accuracy: float
    loss: float

    def better_than(self, best: "Check | None", top: float, num_items: int) -> bool:
        """Whether to keep this state: the lowest loss among those within one standard error of the best accuracy.

        Accuracy alone is a coin toss on a small hold-out: one item of 39 is 2.6 points.

        Args:
            best: what is kept so far.
            top: best accuracy of all checks, this one included.
            num_items: held-out items.
        """
        floor = top - math.sqrt(top * (1 - top) / num_items)
        if best is None or best.accuracy < floor <= self.accuracy:
            return True
        return self.accuracy >= floor and self.loss < best.loss


@dataclass
class Progress:
    """Where a run stands: what a checkpoint keeps beside the tensors of network, best state and optimiser."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    num_seen: int = 0
    micro_batch: int = 0
    best: Check | None = None
    top_accuracy: float = 0.0
    curve: list[dict[str, float | int]] = field(default_factory=list)


@dataclass(frozen=True)
class Trainer:
    """A network with its optimiser on its device; `trainable` maps names to what the optimiser moves.

    Args:
        network: inputs -> logits.
        forward: the network, or its compiled form for full batches.
        optimizer: over `trainable`.
        trainable: parameters by name.
        device: cpu or cuda.
    """

    network: nn.Module
    optimizer: Optimizer
    trainable: dict[str, nn.Parameter]
    device: str
    forward: Callable[[Tensor], Tensor]
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep_best(self) -> None:
        """Copies what is trained."""
        for name, parameter in self.trainable.items():
            self.best[name] = parameter.detach().clone()

    def restore_best(self) -> None:
        """Puts the kept copy back."""
        with torch.no_grad():
            for name, value in self.best.items():
                self.trainable[name].copy_(value)


def train(
    trainer: Trainer,
    data: Data,
    held: Data,
    plan: Plan,
    progress: Progress,
    after_step: Callable[[], bool],
    after_epoch: Callable[[dict[str, float | int]], None],
    warn: Callable[[str], None],
) -> str:
    """Runs until the plan's end, no more gain, or `after_step` says so.

    Returns:
        why it ended: `all epochs`, `no gain for N epochs`, or `asked to end`.

    Raises:
        JobFailure: `diverged`, a loss that is not finite; `out_of_memory`, a batch of one does not fit the device.
    """
    steps_per_epoch = math.ceil(len(data) / plan.batch_size)
    while progress.epoch < plan.epochs:
        began, seen_before = time.monotonic(), progress.num_seen
        pending: list[Tensor] = []
        trainer.network.train(plan.is_training)
        batches = epoch_batches(
            data,
            plan.batch_size,
            epoch_order(len(data), plan.seed, progress.epoch),
            progress.step_in_epoch,
            trainer.device,
            is_training=plan.is_training,
        )
        for inputs, labels_B in batches:
            share = plan.fraction() if plan.fraction else progress.step / (plan.epochs * steps_per_epoch)
            optim.set_factor(trainer.optimizer, plan.schedule(share))
            pending.append(_step(trainer, inputs, labels_B, plan.clip, progress, warn) * len(labels_B))
            progress.step += 1
            progress.step_in_epoch += 1
            progress.num_seen += len(labels_B)
            if trainer.device == "cpu" or len(pending) >= CUDA_CHECK_STEPS:
                _collect(pending, progress)
            if after_step():
                _collect(pending, progress)
                return ASKED
        _collect(pending, progress)
        seconds = max(time.monotonic() - began, 1e-9)
        numbers: dict[str, float | int] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / progress.num_seen,
            "images_per_second": (progress.num_seen - seen_before) / seconds,
        }
        progress.epoch, progress.step_in_epoch, progress.loss_sum, progress.num_seen = progress.epoch + 1, 0, 0.0, 0
        if plan.checks:
            numbers |= look(trainer, held, progress)
        after_epoch(numbers)
        best_epoch = progress.best.epoch if progress.best else progress.epoch
        if plan.patience is not None and progress.epoch - best_epoch >= plan.patience:
            return f"no gain for {plan.patience} epochs"
    return "all epochs"


def predict(trainer: Trainer, data: Data, batch_size: int = EVALUATION_BATCH) -> NDArray[np.float64]:
    """Logits of unaugmented items under the network as it stands.

    Shape:
        result: [N, C]
    """
    trainer.network.eval()
    parts = []
    for start in range(0, len(data), batch_size):
        items_B = np.arange(start, min(start + batch_size, len(data)))
        with torch.no_grad(), _autocast(trainer.device):
            logits_BC = trainer.network(data.source.take(items_B, None).to(trainer.device))
        parts.append(logits_BC.float().cpu().numpy().astype(np.float64))
    return np.concatenate(parts)


def check(logits_NC: NDArray[np.float64], labels_N: NDArray[np.int64], epoch: int) -> Check:
    """Accuracy and mean cross-entropy.

    Raises:
        JobFailure: `diverged`, a score that is not finite.
    """
    if not np.isfinite(logits_NC).all():
        raise diverged(epoch, float("nan"))
    loss = float(cross_entropy(torch.from_numpy(logits_NC), torch.from_numpy(labels_N)))
    return Check(epoch, float((logits_NC.argmax(1) == labels_N).mean()), loss)


def diverged(epoch: int, loss: float) -> JobFailure:
    """The failure of a training whose numbers are no numbers any more."""
    return JobFailure(
        "diverged",
        f"expected a finite loss; found {loss} in epoch {epoch}; "
        "use a narrower scope, or look for broken images or labels",
    )


def _step(
    trainer: Trainer,
    inputs: Tensor,
    labels_B: Tensor,
    clip: float | None,
    progress: Progress,
    warn: Callable[[str], None],
) -> Tensor:
    """One update; halves the part that is computed at once until it fits the device's memory."""
    progress.micro_batch = progress.micro_batch or len(labels_B)
    while True:
        trainer.optimizer.zero_grad(set_to_none=True)
        try:
            loss = _gradient(trainer, inputs, labels_B, progress.micro_batch)
        except torch.OutOfMemoryError:
            if progress.micro_batch == 1:
                raise JobFailure(
                    "out_of_memory",
                    "expected one image to fit the GPU's memory; found that it does not; "
                    "use a smaller backbone or resolution",
                ) from None
            progress.micro_batch = max(1, min(progress.micro_batch, len(labels_B)) // 2)
        else:
            break
        # Outside of the handler: its traceback would keep the failed step's tensors alive.
        trainer.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        warn(f"out of GPU memory: going on with {progress.micro_batch} images at once and accumulated gradients")
    if clip is not None:
        nn.utils.clip_grad_norm_(trainer.trainable.values(), clip)
    trainer.optimizer.step()
    return loss


def _gradient(trainer: Trainer, inputs: Tensor, labels_B: Tensor, micro_batch: int) -> Tensor:
    """Adds up the parts' gradients to the batch's; the mean loss."""
    total = torch.zeros((), device=labels_B.device)
    for start in range(0, len(labels_B), micro_batch):
        here = slice(start, start + micro_batch)
        with _autocast(trainer.device):
            logits_MC = trainer.forward(inputs[here])
        loss = cross_entropy(logits_MC, labels_B[here], len(labels_B))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def _autocast(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def _collect(pending: list[Tensor], progress: Progress) -> None:
    for loss in pending:
        value = float(loss)
        if not math.isfinite(value):
            raise diverged(progress.epoch + 1, value)
        progress.loss_sum += value
    pending.clear()


def look(trainer: Trainer, held: Data, progress: Progress) -> dict[str, float]:
    """Looks at the held-out items and keeps the state when it is the best."""
    found = check(predict(trainer, held), held.labels_N, progress.epoch)
    progress.top_accuracy = max(progress.top_accuracy, found.accuracy)
    if found.better_than(progress.best, progress.top_accuracy, len(held)):
        progress.best = found
        trainer.keep_best()
    return {"val_accuracy": found.accuracy, "val_loss": found.loss}
