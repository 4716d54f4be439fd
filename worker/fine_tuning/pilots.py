"""Chooses the learning rate by short pilots, and from their pace how many epochs fit the time."""

import math
import time

import numpy as np
import torch
from torch import nn

from app.errors import JobFailure
from worker.fine_tuning.workbench import Pilot, Workbench
from worker.training import checks, loop, optim
from worker.training.batches import Data
from worker.training.checks import Check
from worker.training.loop import Plan, Progress
from worker.training.losses import cross_entropy
from worker.training.views import END, REST

PILOT_STEPS = 50
# Of the planned steps, for one pilot.
PILOT_SHARE = 0.05
# What is planned into the time that is left; the rest is for checks and surprises.
TIME_SHARE = 0.9
TIMED_ITEMS = 8


def choose_rate(bench: Workbench) -> float:
    """The rate whose short pilot leaves the smallest loss on the hold-out.

    A single rate needs no pilot, unless the time is bounded and no step was timed before.

    Raises:
        Yielded: the worker shuts down; a checkpoint is written.
        JobFailure: `diverged`, with every rate; `out_of_memory`.
        Left: see views.
    """
    settings = bench.material.optimisation
    rates = settings.rates
    if len(rates) > 1 or (bench.deadline is not None and bench.pace is None):
        start = bench.look(bench.trainer(rates[0]))
        while (rate := optim.next_rate(settings, _losses(bench), start.loss)) is not None and not bench.must_end():
            if not _has_time(bench, rate):
                break
            _pilot(bench, rate)
    bench.gather_all()
    if not bench.planned_epochs:
        bench.planned_epochs = _plan_epochs(bench)
    losses = _losses(bench)
    if losses and not math.isfinite(min(losses.values())) and not bench.must_end():
        raise checks.diverged(1, float("nan"))
    rate = min(losses, key=lambda tried: losses[tried], default=rates[0])
    if len(bench.pilots) > 1:
        tried = ", ".join(_describe(pilot) for pilot in bench.pilots)
        bench.context.reporter.log(f"learning rate {rate:g}: {tried}", rate=rate, pilots=bench.pilots)
    return rate


def step_seconds(network: nn.Module, data: Data, device: str) -> float:
    """Seconds that a gradient step takes for each item, inputs included: timed on a few; no parameter is moved."""
    items_B = np.arange(min(TIMED_ITEMS, len(data)))
    labels_B = torch.from_numpy(data.labels_N[items_B]).to(device)
    network.to(device).to(memory_format=torch.channels_last).eval()
    began = 0.0
    # The first one makes what later ones reuse.
    for _ in range(2):
        began = time.monotonic()
        inputs = data.source.take(items_B, np.zeros(len(items_B), np.uint64)).to(device)
        with loop.autocast(device):
            logits_BC = network(inputs)
        cross_entropy(logits_BC.float(), labels_B).backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
    return (time.monotonic() - began) / len(items_B)


def _losses(bench: Workbench) -> dict[float, float]:
    """Loss on the hold-out after each pilot; infinite where it diverged."""
    return {
        float(pilot["rate"] or 0.0): math.inf if pilot["val_loss"] is None else float(pilot["val_loss"])
        for pilot in bench.pilots
    }


def _num_steps(bench: Workbench) -> int:
    total = bench.epochs * bench.steps_per_epoch
    return max(1, min(bench.steps_per_epoch, PILOT_STEPS, int(total * PILOT_SHARE)))


def _has_time(bench: Workbench, rate: float) -> bool:
    """Whether a pilot fits the part of the time that pilots have: by the last one, the first by the job's pace."""
    pace = bench.pace
    if pace is None:
        return True
    images = _num_steps(bench) * bench.batch_size
    forecast = images * (pace.step_seconds + pace.gather_seconds)
    if bench.pilots:
        forecast = float(bench.pilots[-1]["seconds"] or 0.0)
    left = pace.pilots_by - time.monotonic()
    if forecast <= left:
        return True
    reason = f"its forecast of {forecast:.1f} s does not fit the {max(0.0, left):.1f} s that pilots have"
    pace.skip(f"pilot of learning rate {rate:g}", reason)
    return False


def _pilot(bench: Workbench, rate: float) -> None:
    material, reporter = bench.material, bench.context.reporter
    limit = _num_steps(bench)
    bench.gather_some(limit)
    if bench.is_short:
        return
    bench.reset()
    trainer, progress = bench.trainer(rate), Progress(micro_batch=material.micro_batch)
    plan = Plan(
        epochs=bench.epochs,
        batch_size=bench.batch_size,
        seed=bench.seed,
        clip=material.optimisation.clip,
        # Brought down to zero like the run itself: at full rate a loss jumps about, and small rates win unfairly.
        fraction=lambda: progress.step / limit,
        checks=False,
        mixup=bench.options.mixup,
        l2_sp=bench.options.l2_sp,
    )
    began = time.monotonic()

    def after_step() -> bool:
        if reporter.yield_requested:
            bench.save("pilot", 0, {})
            reporter.check_yield()
        reporter.progress(END if material.views is None else REST, f"pilot of learning rate {rate:g}")
        return progress.step >= limit or bench.must_end()

    found: Check | None
    try:
        loop.train(trainer, material.train, material.held, plan, progress, after_step, _ignore, bench.warn)
        seconds = time.monotonic() - began
        found = bench.look(trainer)
    except JobFailure as failure:
        if failure.code != "diverged":
            raise
        seconds, found = time.monotonic() - began, None
    bench.pilots.append(
        {
            "rate": rate,
            "steps": progress.step,
            "val_loss": None if found is None else found.loss,
            "val_accuracy": None if found is None else found.accuracy,
            "seconds": seconds,
        }
    )
    bench.save("pilot", 0, {})
    numbers = {name: value for name, value in bench.pilots[-1].items() if name not in ("steps", "seconds")}
    reporter.metric(f"pilot of learning rate {_describe(bench.pilots[-1])}", step=bench.pilot_steps, **numbers)


def _plan_epochs(bench: Workbench) -> int:
    """As many epochs as were asked for, or as fit the time by the pilots' pace."""
    if bench.deadline is None or not (bench.pilots or bench.pace) or (bench.pace and bench.must_end()):
        return bench.epochs
    if bench.pilots:
        pace = sum(float(pilot["seconds"] or 0.0) for pilot in bench.pilots) / max(1, bench.pilot_steps)
    else:
        assert bench.pace is not None
        pace = bench.pace.step_seconds * bench.batch_size
    left = TIME_SHARE * ((bench.train_by or bench.deadline) - time.monotonic())
    each = pace * bench.steps_per_epoch + bench.look_seconds
    fits = max(1, min(bench.epochs, int(left / max(1e-9, each))))
    if fits < bench.epochs:
        bench.warn(f"{fits} of {bench.epochs} epochs fit the time: {each:.1f} s each, {left:.0f} s left")
    return fits


def _describe(pilot: Pilot) -> str:
    loss = "diverged" if pilot["val_loss"] is None else f"hold-out loss {pilot['val_loss']:.4f}"
    return f"{pilot['rate']:g} {loss}"


def _ignore(_: dict[str, float | int]) -> None:
    """Pilots tell nothing of their epochs."""
