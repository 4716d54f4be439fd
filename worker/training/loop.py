"""The one training loop: gradient steps, a check after every epoch, the best state kept, early stopping.

It knows nothing of jobs. Whoever calls it gives two functions: `after_step`, which may end the run, and `after_epoch`,
which hears the numbers. Everything random is decided by (seed, epoch, item), so a state that was saved between two
steps continues bit for bit on the same device and thread count.

Shape legend: N items, B of a batch, C classes.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from app.errors import JobFailure
from worker.evaluate import judged
from worker.training import checks, optim
from worker.training.batches import Data, epoch_batches, epoch_order
from worker.training.checks import Check, Look
from worker.training.losses import l2_sp
from worker.training.mixing import Mixed, mix

ASKED = "asked to end"
EVALUATION_BATCH = 64
# Reading a loss waits for the device; a GPU is asked only so often.
CUDA_CHECK_STEPS = 25


class _Left(Exception):
    """A step was left between two of its parts; nothing has moved."""


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
        mixup: strength; 0 leaves images alone.
        l2_sp: strength of the pull towards the trainer's `anchor`.
        num_runners: next best states that are kept beside the best one.
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
    mixup: float = 0.0
    l2_sp: float = 0.0
    num_runners: int = 0


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
    runners: list[Check] = field(default_factory=list)
    curve: list[dict[str, float | int]] = field(default_factory=list)


@dataclass
class Trainer:
    """A network with its optimiser on its device; `trainable` maps names to what the optimiser moves.

    Args:
        network: inputs -> logits.
        forward: the network, or its compiled form for full batches.
        optimizer: over `trainable`.
        trainable: parameters by name.
        device: cpu or cuda.
        best: the kept copy of what is trained.
        runners: copies of the next best states, of `Progress.runners`.
        anchor: where L2-SP pulls to, by name.
        looks: what each state that was looked at said, in order; empty where there are too many held-out items.
    """

    network: nn.Module
    optimizer: Optimizer
    trainable: dict[str, nn.Parameter]
    device: str
    forward: Callable[[Tensor], Tensor]
    best: dict[str, Tensor] = field(default_factory=dict)
    runners: list[dict[str, Tensor]] = field(default_factory=list)
    anchor: Mapping[str, Tensor] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)

    def copy(self) -> dict[str, Tensor]:
        """What is trained, as it stands."""
        return {name: parameter.detach().clone() for name, parameter in self.trainable.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts a copy back."""
        with torch.no_grad():
            for name, value in state.items():
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
    leaves: Callable[[], bool] = lambda: False,
) -> str:
    """Runs until the plan's end, no more gain, or `after_step` says so.

    `leaves` is asked between the parts of a step, which may take a minute on a busy machine: whether to end without it.

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
            try:
                loss = _step(trainer, inputs, labels_B, plan, progress, warn, leaves)
            except _Left:
                _collect(pending, progress)
                return ASKED
            pending.append(loss * len(labels_B))
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
        }
        if num_images := progress.num_seen - seen_before:
            # None where an earlier attempt had come to the epoch's last step.
            numbers["images_per_second"] = num_images / seconds
        progress.epoch, progress.step_in_epoch, progress.loss_sum, progress.num_seen = progress.epoch + 1, 0, 0.0, 0
        if plan.checks:
            numbers |= look(trainer, held, progress, plan.num_runners)
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
        with torch.no_grad(), autocast(trainer.device):
            logits_BC = trainer.network(data.source.take(items_B, None).to(trainer.device))
        parts.append(logits_BC.float().cpu().numpy().astype(np.float64))
    return np.concatenate(parts)


def _step(
    trainer: Trainer,
    inputs: Tensor,
    labels_B: Tensor,
    plan: Plan,
    progress: Progress,
    warn: Callable[[str], None],
    leaves: Callable[[], bool],
) -> Tensor:
    """One update; halves the part that is computed at once until it fits the device's memory.

    Raises:
        _Left: it was left.
    """
    progress.micro_batch = progress.micro_batch or len(labels_B)
    generator = np.random.default_rng((plan.seed, progress.epoch, progress.step))
    mixed = mix(inputs, labels_B, plan.mixup, generator)
    while True:
        trainer.optimizer.zero_grad(set_to_none=True)
        try:
            loss = _gradient(trainer, mixed, progress.micro_batch, leaves)
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
    if plan.l2_sp:
        pairs = ((trainer.trainable[name], start) for name, start in trainer.anchor.items())
        l2_sp(pairs, plan.l2_sp).backward()  # type: ignore[no-untyped-call]
    if plan.clip is not None:
        nn.utils.clip_grad_norm_(trainer.trainable.values(), plan.clip)
    trainer.optimizer.step()
    return loss


def _gradient(trainer: Trainer, mixed: Mixed, micro_batch: int, leaves: Callable[[], bool]) -> Tensor:
    """Adds up the parts' gradients to the batch's; the mean loss."""
    labels_B = mixed.labels_B
    total = torch.zeros((), device=labels_B.device)
    for start in range(0, len(labels_B), micro_batch):
        if start and leaves():
            raise _Left
        here = slice(start, start + micro_batch)
        with autocast(trainer.device):
            logits_MC = trainer.forward(mixed.inputs[here])
        loss = mixed.loss(logits_MC, here)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def autocast(device: str) -> torch.autocast:
    """Half precision where the device is made for it."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def _collect(pending: list[Tensor], progress: Progress) -> None:
    for loss in pending:
        value = float(loss)
        if not math.isfinite(value):
            raise checks.diverged(progress.epoch + 1, value)
        progress.loss_sum += value
    pending.clear()


def look(trainer: Trainer, held: Data, progress: Progress, num_runners: int = 0) -> dict[str, float]:
    """Looks at the held-out items and keeps the state when it is the best, or one of the next best of the run."""
    logits_NC = predict(trainer, held)
    found = checks.check(logits_NC, held.labels_N, progress.epoch)
    if len(held) <= judged.MAX_ITEMS:
        trainer.looks.append(checks.look(logits_NC, held.labels_N))
    progress.top_accuracy = max(progress.top_accuracy, found.accuracy)
    second, state = found, trainer.copy()
    if found.better_than(progress.best, progress.top_accuracy, len(held)):
        second, progress.best = progress.best or found, found
        state, trainer.best = trainer.best, state
    if num_runners and second.epoch > 0 and second is not progress.best:
        # In the order of `Check.better_than`; what training began with is no ingredient.
        floor = progress.top_accuracy - math.sqrt(progress.top_accuracy * (1 - progress.top_accuracy) / len(held))
        pairs = [*zip(progress.runners, trainer.runners, strict=True), (second, state)]
        pairs = sorted(pairs, key=lambda pair: (pair[0].accuracy < floor, pair[0].loss))[:num_runners]
        progress.runners, trainer.runners[:] = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return {"val_accuracy": found.accuracy, "val_loss": found.loss}
