"""Fine-tuning as a job runs it: pilots, the run itself, checkpoints, resumption, stop and yield.

Steps are counted over all attempts, pilots included. The first checkpoint is in storage before the first metric is
told.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from app.errors import JobFailure
from worker import loop, optim, trained
from worker.checkpoint import Checkpoints, Snapshot
from worker.context import RunContext
from worker.loop import Check, Plan, Progress, Trainer
from worker.scopes import Material, Network

PATIENCE_EPOCHS = 5
PILOT_STEPS = 50
# Of the planned steps, for one pilot.
PILOT_SHARE = 0.05
# Compiling takes tens of seconds; it pays when so many images are to be seen.
COMPILE_FROM_IMAGES = 100_000
# What is planned into the time that is left; the rest is for checks and surprises.
TIME_SHARE = 0.9


@dataclass(frozen=True)
class Tuned:
    """What became of a run; the network holds its best state.

    Args:
        rate: learning rate that was chosen.
        pilots: what it was chosen by.
        epochs: that were run.
        planned_epochs: that the time was thought to allow.
        best: check of the state that was kept; epoch 0 is the probe.
        curve: of every epoch.
        num_steps: of all phases.
        seconds: of training, over all attempts.
        images_per_second: median over the epochs of this attempt; None where none was finished.
        ended: why: `all epochs`, `no gain for N epochs`, `stopped` or `no time left`.
    """

    rate: float
    pilots: list[dict[str, float | int | None]]
    epochs: int
    planned_epochs: int
    best: Check
    curve: list[dict[str, float | int]]
    num_steps: int
    seconds: float
    images_per_second: float | None
    ended: str


@dataclass
class Tuning:
    """One run over all its phases.

    Args:
        context: of the job.
        network: trunk and head, at the start state; changed in place.
        material: what is trained and read.
        checkpoints: of this run.
        epochs: at most.
        seed: of everything random.
        deadline: when training must end, by `time.monotonic`.
        start: further tensors and facts that every checkpoint carries.
        snapshot: where an earlier attempt stood.
    """

    context: RunContext
    network: Network
    material: Material
    checkpoints: Checkpoints
    epochs: int
    seed: int
    deadline: float | None
    start_tensors: dict[str, Tensor]
    start_facts: dict[str, Any]
    snapshot: Snapshot | None
    _pilots: list[dict[str, float | int | None]] = field(default_factory=list)
    _planned: int = 0

    def run(self) -> Tuned:
        """Chooses the learning rate, trains, leaves the best state in the network.

        Raises:
            Yielded: the worker shuts down; a checkpoint is written.
            JobFailure: `diverged` or `out_of_memory`.
        """
        self._began = time.monotonic()
        self._spent = self.snapshot.facts["seconds"] if self.snapshot else 0.0
        settings, device = self.material.optimisation, self.context.device
        self._batch_size = optim.batch_size(len(self.material.train), settings.batch_size)
        self._steps_per_epoch = math.ceil(len(self.material.train) / self._batch_size)
        self.network.to(device).to(memory_format=torch.channels_last)
        self._trainable = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        self._initial = {name: value.detach().clone() for name, value in self._trainable.items()}
        if self.snapshot is not None:
            self._pilots = self.snapshot.facts["pilots"]
            self._planned = self.snapshot.facts["planned_epochs"]
            self.context.reporter.log(f"resumed from step {self.snapshot.step}", step=self.snapshot.step)
        rate = self._choose_rate()
        return self._train(rate)

    @property
    def _losses(self) -> dict[float, float]:
        """Loss on the hold-out after each pilot; infinite where it diverged."""
        return {
            float(pilot["rate"] or 0.0): math.inf if pilot["val_loss"] is None else float(pilot["val_loss"])
            for pilot in self._pilots
        }

    @property
    def _pilot_steps(self) -> int:
        return sum(int(pilot["steps"] or 0) for pilot in self._pilots)

    def _choose_rate(self) -> float:
        """The rate whose short pilot leaves the smallest loss on the hold-out.

        A single rate needs no pilot, unless the time is bounded and one step must be timed.
        """
        settings = self.material.optimisation
        rates = settings.rates
        if len(rates) > 1 or self.deadline is not None:
            start = self._look(self._trainer(rates[0]))
            while (rate := optim.next_rate(settings, self._losses, start.loss)) is not None and not self._must_end():
                self._pilot(rate)
        if not self._planned:
            self._planned = self._plan_epochs()
        losses = self._losses
        if losses and not math.isfinite(min(losses.values())) and not self._must_end():
            raise loop.diverged(1, float("nan"))
        rate = min(losses, key=lambda tried: losses[tried], default=rates[0])
        if len(self._pilots) > 1:
            tried = ", ".join(_describe(pilot) for pilot in self._pilots)
            self.context.reporter.log(f"learning rate {rate:g}: {tried}", rate=rate, pilots=self._pilots)
        return rate

    def _pilot(self, rate: float) -> None:
        material = self.material
        total = self.epochs * self._steps_per_epoch
        limit = max(1, min(self._steps_per_epoch, PILOT_STEPS, int(total * PILOT_SHARE)))
        self._reset(self._initial)
        trainer, progress = self._trainer(rate), Progress(micro_batch=material.micro_batch)
        plan = Plan(
            epochs=self.epochs,
            batch_size=self._batch_size,
            seed=self.seed,
            clip=material.optimisation.clip,
            # Brought down to zero like the run itself: at full rate a loss jumps about, and small rates win unfairly.
            fraction=lambda: progress.step / limit,
            checks=False,
        )
        began = time.monotonic()

        def after_step() -> bool:
            if self.context.reporter.yield_requested:
                self._save_pilots()
                self.context.reporter.check_yield()
            self.context.reporter.progress(0.45, f"pilot of learning rate {rate:g}")
            return progress.step >= limit or self._must_end()

        found: Check | None
        try:
            loop.train(trainer, material.train, material.held, plan, progress, after_step, _ignore, self._warn)
            seconds = time.monotonic() - began
            found = self._look(trainer)
        except JobFailure as failure:
            if failure.code != "diverged":
                raise
            seconds, found = time.monotonic() - began, None
        self._pilots.append(
            {
                "rate": rate,
                "steps": progress.step,
                "val_loss": None if found is None else found.loss,
                "val_accuracy": None if found is None else found.accuracy,
                "seconds": seconds,
            }
        )
        self._save_pilots()

    def _look(self, trainer: Trainer) -> Check:
        held = self.material.held
        return loop.check(loop.predict(trainer, held), held.labels_N, 0)

    def _plan_epochs(self) -> int:
        """As many epochs as were asked for, or as fit the time by the pilots' pace."""
        if self.deadline is None or not self._pilots:
            return self.epochs
        pace = sum(float(pilot["seconds"] or 0.0) for pilot in self._pilots) / max(1, self._pilot_steps)
        left = TIME_SHARE * (self.deadline - time.monotonic())
        fits = max(1, min(self.epochs, int(left / max(1e-9, pace * self._steps_per_epoch))))
        if fits < self.epochs:
            self.context.reporter.log(
                f"{fits} of {self.epochs} epochs fit the time: "
                f"{pace * self._steps_per_epoch:.1f} s each, {left:.0f} s left",
                "warning",
            )
        return fits

    def _train(self, rate: float) -> Tuned:
        material, reporter = self.material, self.context.reporter
        progress = Progress(micro_batch=material.micro_batch)
        self._reset(self._initial)
        trainer = self._trainer(rate)
        facts = self.snapshot.facts if self.snapshot else {}
        ended: str | None = facts.get("ended")
        if self.snapshot is not None and facts["phase"] == "train":
            progress = trained.unpack(trainer, self.snapshot.tensors, facts["progress"])
        else:
            start = loop.look(trainer, material.held, progress)
            reporter.log(
                f"start: the probe's head, hold-out accuracy {start['val_accuracy']:.3f}, loss {start['val_loss']:.4f}"
            )
        plan = Plan(
            epochs=self._planned,
            batch_size=self._batch_size,
            seed=self.seed,
            clip=material.optimisation.clip,
            patience=PATIENCE_EPOCHS,
            schedule=lambda fraction: optim.cosine(fraction, material.optimisation.warmup),
        )
        paces: list[float] = []
        total = self._planned * self._steps_per_epoch

        def save() -> None:
            self._save("train", trainer, progress, rate, None)

        def is_due() -> bool:
            return self.checkpoints.is_due(self._pilot_steps + progress.step, total)

        def after_step() -> bool:
            if reporter.yield_requested:
                save()
                reporter.check_yield()
            if is_due():
                save()
            share = progress.step / total
            reporter.progress(0.45 + 0.35 * share, "train", round(self._eta(share), 1))
            return self._must_end()

        def after_epoch(numbers: dict[str, float | int]) -> None:
            paces.append(float(numbers["images_per_second"]))
            progress.curve.append({name: value for name, value in numbers.items() if name != "images_per_second"})
            if self.checkpoints.is_empty or is_due():
                save()
            step = self._pilot_steps + progress.step
            reporter.metric(
                f"epoch {numbers['epoch']}: loss {numbers['train_loss']:.4f}, "
                f"hold-out accuracy {numbers['val_accuracy']:.3f}, loss {numbers['val_loss']:.4f}, "
                f"{numbers['images_per_second']:.0f} images/s",
                step=step,
                **numbers,
            )

        if ended is None:
            self._train_began = time.monotonic()
            ended = loop.ASKED
            if not self._must_end():
                ended = loop.train(
                    trainer, material.train, material.held, plan, progress, after_step, after_epoch, self._warn
                )
            if progress.step_in_epoch:
                # Ended within an epoch: what was learned until then takes part in the choice.
                progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
                loop.look(trainer, material.held, progress)
            if ended == loop.ASKED:
                ended = "stopped" if reporter.stop_requested else "no time left"
            self._save("train", trainer, progress, rate, ended)
        trainer.restore_best()
        assert progress.best is not None
        return Tuned(
            rate=rate,
            pilots=self._pilots,
            epochs=progress.epoch,
            planned_epochs=self._planned,
            best=progress.best,
            curve=progress.curve,
            num_steps=self._pilot_steps + progress.step,
            seconds=self._seconds,
            images_per_second=sorted(paces)[len(paces) // 2] if paces else None,
            ended=ended,
        )

    def _trainer(self, rate: float) -> Trainer:
        optimizer = optim.build(self.material.optimisation, self._trainable.values(), self.material.scales, rate)
        device = self.context.device
        num_images = self.epochs * len(self.material.train)
        forward: Callable[[Tensor], Tensor] = self.network
        if device == "cuda" and num_images >= COMPILE_FROM_IMAGES:
            forward = torch.compile(self.network)
        return Trainer(self.network, optimizer, self._trainable, device, forward)

    def _reset(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self._trainable[name].copy_(value)

    def _must_end(self) -> bool:
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self.context.reporter.stop_requested

    def _eta(self, share: float) -> float:
        return (time.monotonic() - self._train_began) * (1 - share) / max(share, 1e-3)

    @property
    def _seconds(self) -> float:
        return self._spent + time.monotonic() - self._began

    def _warn(self, message: str) -> None:
        self.context.reporter.log(message, "warning")

    def _facts(self, phase: str, **more: Any) -> dict[str, Any]:
        return {
            **self.start_facts,
            "phase": phase,
            "pilots": self._pilots,
            "planned_epochs": self._planned,
            "seconds": self._seconds,
            **more,
        }

    def _save_pilots(self) -> None:
        self.checkpoints.write(Snapshot(self._pilot_steps, dict(self.start_tensors), self._facts("pilot")))

    def _save(self, phase: str, trainer: Trainer, progress: Progress, rate: float, ended: str | None) -> None:
        facts = self._facts(phase, rate=rate, progress=asdict(progress), ended=ended)
        tensors = self.start_tensors | trained.pack(trainer)
        self.checkpoints.write(Snapshot(self._pilot_steps + progress.step, tensors, facts))


def _describe(pilot: dict[str, float | int | None]) -> str:
    loss = "diverged" if pilot["val_loss"] is None else f"hold-out loss {pilot['val_loss']:.4f}"
    return f"{pilot['rate']:g} {loss}"


def _ignore(_: dict[str, float | int]) -> None:
    """Pilots tell nothing of their epochs."""
