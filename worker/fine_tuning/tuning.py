"""Fine-tuning as a job runs it: pilots, the run itself, checkpoints, resumption, stop and yield.

Steps are counted over all attempts, pilots included. The first checkpoint is in storage before the first metric is
told.
"""

import statistics
import time
from dataclasses import asdict, dataclass

from worker.fine_tuning import pilots
from worker.fine_tuning.workbench import Pilot, Workbench
from worker.training import loop, optim, soup, trained
from worker.training.checks import Check, Look
from worker.training.loop import Plan, Progress, Trainer


@dataclass(frozen=True)
class Tuned:
    """What became of a run; the network holds its best state.

    Args:
        rate: learning rate that was chosen.
        pilots: what it was chosen by.
        epochs: that were run.
        planned_epochs: that the time was thought to allow.
        best: check of the state that was kept; epoch 0 is the probe.
        soup: epochs whose states were averaged; empty without a soup.
        wise_share: of the tuned weights; the rest is the start's.
        curve: of every epoch, the start's look first; of one that was left, the look alone.
        num_steps: of all phases.
        seconds: of training, over all attempts.
        images_per_second: median over the epochs of this attempt; None where none was finished.
        trained_params: numbers that were learned, the head's among them.
        ended: why: `all epochs`, `no gain for N epochs`, `stopped` or `no time left`.
        looks: at the hold-out, the start's first, one per epoch; see `Trainer.looks`.
    """

    rate: float
    pilots: list[Pilot]
    epochs: int
    planned_epochs: int
    best: Check
    soup: tuple[int, ...]
    wise_share: float
    curve: list[dict[str, float | int]]
    num_steps: int
    seconds: float
    images_per_second: float | None
    trained_params: int
    ended: str
    looks: tuple[Look, ...] = ()


def run(bench: Workbench) -> Tuned:
    """Chooses the learning rate, trains, leaves the best state in the network.

    Raises:
        Yielded: the worker shuts down; a checkpoint is written.
        JobFailure: `diverged` or `out_of_memory`.
    """
    rate = pilots.choose_rate(bench)
    material, reporter = bench.material, bench.context.reporter
    bench.reset()
    trainer = bench.trainer(rate)
    progress, ended = _begun(bench, trainer)
    plan = Plan(
        epochs=bench.planned_epochs,
        batch_size=bench.batch_size,
        seed=bench.seed,
        clip=material.optimisation.clip,
        patience=material.optimisation.patience,
        schedule=lambda fraction: optim.cosine(fraction, material.optimisation.warmup),
        fraction=lambda: _fraction(bench, progress.step / total, (began, first)),
        mixup=bench.options.mixup,
        l2_sp=bench.options.l2_sp,
        num_runners=soup.NUM_STATES - 1 if bench.options.soup else 0,
    )
    paces: list[float] = []
    total = bench.planned_epochs * bench.steps_per_epoch
    began, first = time.monotonic(), progress.step / total

    def save() -> None:
        tensors = trained.pack(trainer)
        bench.save("train", progress.step, tensors, rate=rate, progress=asdict(progress), ended=ended)

    def is_due() -> bool:
        return bench.checkpoints.is_due(bench.pilot_steps + progress.step, total)

    def after_step() -> bool:
        if reporter.yield_requested:
            save()
            reporter.check_yield()
        if is_due():
            save()
        share = progress.step / total
        eta_seconds = (time.monotonic() - began) * (1 - share) / max(share, 1e-3)
        reporter.progress(0.45 + 0.35 * share, "train", round(eta_seconds, 1))
        return bench.must_end()

    def after_epoch(numbers: dict[str, float | int]) -> None:
        if "images_per_second" in numbers:
            paces.append(numbers["images_per_second"])
        progress.curve.append({name: value for name, value in numbers.items() if name != "images_per_second"})
        if bench.checkpoints.is_empty or is_due():
            save()
        reporter.metric(_epoch(numbers), step=bench.pilot_steps + progress.step, **numbers)

    if ended is None:
        reason = loop.ASKED
        if not bench.must_end():
            reason = loop.train(
                trainer,
                material.train,
                material.held,
                plan,
                progress,
                after_step,
                after_epoch,
                bench.warn,
                bench.must_end,
            )
        if progress.step_in_epoch:
            # Ended within an epoch: what was learned until then takes part in the choice.
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
            seen = loop.look(trainer, material.held, progress, plan.num_runners)
            progress.curve.append({"epoch": progress.epoch, **seen})
        if reason == loop.ASKED:
            reason = "stopped" if reporter.stop_requested else "no time left"
        ended = reason
        save()
    best, epochs, share = _kept(bench, trainer, progress)
    return Tuned(
        rate=rate,
        pilots=bench.pilots,
        epochs=progress.epoch,
        planned_epochs=bench.planned_epochs,
        best=best,
        soup=epochs,
        wise_share=share,
        curve=progress.curve,
        num_steps=bench.pilot_steps + progress.step,
        seconds=bench.seconds,
        images_per_second=statistics.median_high(paces) if paces else None,
        trained_params=sum(value.numel() for value in bench.trainable.values()),
        ended=ended,
        looks=tuple(trainer.looks),
    )


def _begun(bench: Workbench, trainer: Trainer) -> tuple[Progress, str | None]:
    """How far the run is, and why it ended where it has: what an earlier attempt left, or a look at the start."""
    snapshot, reporter = bench.snapshot, bench.context.reporter
    facts = snapshot.facts if snapshot else {}
    ended: str | None = facts.get("ended")
    if snapshot is not None and facts["phase"] == "train":
        return trained.unpack(trainer, snapshot.tensors, facts["progress"]), ended
    progress = Progress(micro_batch=bench.material.micro_batch)
    start = loop.look(trainer, bench.material.held, progress)
    progress.curve.append({"epoch": 0, **start})
    reporter.log(
        f"start: the probe's head, hold-out accuracy {start['val_accuracy']:.3f}, loss {start['val_loss']:.4f}"
    )
    return progress, ended


def _epoch(numbers: dict[str, float | int]) -> str:
    """What is told of one; its pace where something of it was computed now, and not all by an earlier attempt."""
    pace = numbers.get("images_per_second")
    return (
        f"epoch {numbers['epoch']}: loss {numbers['train_loss']:.4f}, "
        f"hold-out accuracy {numbers['val_accuracy']:.3f}, loss {numbers['val_loss']:.4f}"
        + ("" if pace is None else f", {pace:.0f} images/s")
    )


def _fraction(bench: Workbench, share: float, start: tuple[float, float]) -> float:
    """How much of the run is over: the share of its steps, or of its time where that runs out sooner.

    A rate that has not come down when the time ends leaves a state that no epoch would have ended with.

    Args:
        bench: of the run.
        share: of the steps.
        start: when this attempt began to train, by `time.monotonic`, and at which share.
    """
    if (train_by := bench.train_by) is None:
        return share
    began, first = start
    spent = (time.monotonic() - began) / max(1e-9, train_by - began)
    return min(1.0, max(share, first + (1 - first) * spent))


def _kept(bench: Workbench, trainer: Trainer, progress: Progress) -> tuple[Check, tuple[int, ...], float]:
    """Leaves in the network what is served: the best state, its soup, or something on the way there from the start.

    Returns:
        its check, the epochs of the soup, and the share of the tuned weights.
    """
    trainer.load(trainer.best)
    best, held = progress.best, bench.material.held
    epochs: tuple[int, ...] = ()
    share = 1.0
    assert best is not None
    if best.epoch and bench.options.soup:
        best, epochs = soup.greedy(trainer, held, best, list(zip(progress.runners, trainer.runners, strict=True)))
    if best.epoch and bench.options.wise:
        best, share = soup.interpolate(trainer, held, best, bench.initial)
    bench.context.reporter.log(
        f"kept: epoch {best.epoch}, soup of epochs {list(epochs)}, {share:g} of the way from the start; "
        f"hold-out accuracy {best.accuracy:.3f}, loss {best.loss:.4f}"
    )
    return best, epochs, share
