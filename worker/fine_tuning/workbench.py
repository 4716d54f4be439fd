"""What the phases of one fine-tuning share: the network at its start, the clock, the checkpoints."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from worker.attempt.context import RunContext
from worker.backbones import features
from worker.fine_tuning.network import Network
from worker.fine_tuning.scopes import Material
from worker.training import checks, loop, optim, soup
from worker.training.batches import epoch_order
from worker.training.checkpoint import Checkpoints, Snapshot
from worker.training.checks import Check
from worker.training.loop import Trainer

# Compiling takes tens of seconds; it pays when so many images are to be seen.
COMPILE_FROM_IMAGES = 100_000
# A look at an item against a step with it: forward alone, where a step goes back at twice the cost.
LOOK_SHARE = 1 / 3

Pilot = dict[str, float | int | None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a recipe may add to plain training.

    Args:
        mixup: strength.
        l2_sp: strength.
        soup: whether the best states are averaged.
        wise: whether the result may move back towards the start.
    """

    mixup: float = 0.0
    l2_sp: float = 0.0
    soup: bool = True
    wise: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """What a job that is bounded as a whole plans by: with it, what the time does not allow is left out and not Left.

    Args:
        step_seconds: of training, for each image of a step.
        gather_seconds: to gather the inputs of an image.
        pilots_by: when the pilots must have ended, by `time.monotonic`.
        skip: writes down what is left out, and why.
    """

    step_seconds: float
    gather_seconds: float
    pilots_by: float
    skip: Callable[[str, str], None]


def spent(snapshot: Snapshot | None) -> tuple[float, float]:
    """Seconds that earlier attempts took: of training, and of the whole job."""
    if snapshot is None:
        return 0.0, 0.0
    training: float = snapshot.facts["seconds"]
    # Checkpoints from before the job's time was written down.
    return training, snapshot.facts.get("job_seconds", training)


@dataclass
class Workbench:
    """One run over all its phases.

    Args:
        context: of the job.
        network: trunk and head, at the start state; changed in place.
        material: what is trained and read.
        checkpoints: of this run.
        epochs: at most.
        seed: of everything random.
        deadline: when training must end, by `time.monotonic`.
        start_tensors: further tensors that every checkpoint carries.
        start_facts: further facts that every checkpoint carries.
        snapshot: where an earlier attempt stood.
        options: of the recipe.
        pace: where the whole job has a bound; None where its caller minds that.
        pilots: what the learning rate was chosen by, so far.
        planned_epochs: that the time is thought to allow; 0 until that is known.
        is_short: whether the inputs could not be gathered in the time, so that nothing is trained.
        look_seconds: of one look at the hold-out, as far as one was timed or can be expected.
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
    options: Options = Options()
    pace: Pace | None = None
    pilots: list[Pilot] = field(default_factory=list)
    planned_epochs: int = 0
    is_short: bool = False
    look_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._spent, self._job_spent = spent(self.snapshot)
        num_images = len(self.material.train)
        self.batch_size = optim.batch_size(num_images, self.material.optimisation.batch_size)
        self.steps_per_epoch = math.ceil(num_images / self.batch_size)
        self.network.to(self.context.device).to(memory_format=torch.channels_last)
        self.trainable: dict[str, nn.Parameter] = {
            name: value for name, value in self.network.named_parameters() if value.requires_grad
        }
        self.initial = {name: value.detach().clone() for name, value in self.trainable.items()}
        if self.pace is not None:
            self.look_seconds = LOOK_SHARE * len(self.material.held) * self.pace.step_seconds
        if self.snapshot is not None:
            self.pilots = self.snapshot.facts["pilots"]
            self.planned_epochs = self.snapshot.facts["planned_epochs"]
            self.context.reporter.log(f"resumed from step {self.snapshot.step}", step=self.snapshot.step)

    @property
    def pilot_steps(self) -> int:
        """Steps that the pilots took."""
        return sum(int(pilot["steps"] or 0) for pilot in self.pilots)

    @property
    def seconds(self) -> float:
        """Of training, over all attempts."""
        return self._spent + time.monotonic() - self._began

    def trainer(self, rate: float) -> Trainer:
        """A new optimiser over the network as it stands."""
        settings = self.material.optimisation
        scales = self.material.scales | {id(value): settings.head_scale for value in self.network.head.parameters()}
        optimizer = optim.build(settings, self.trainable.values(), scales, rate)
        device = self.context.device
        forward: Callable[[Tensor], Tensor] = self.network
        if device == "cuda" and self.epochs * len(self.material.train) >= COMPILE_FROM_IMAGES:
            forward = torch.compile(self.network)
        # The head has no pretrained state to be pulled to.
        anchor = {name: value for name, value in self.initial.items() if not name.startswith("head.")}
        return Trainer(self.network, optimizer, self.trainable, device, forward, anchor=anchor)

    def gather_some(self, num_steps: int) -> None:
        """The training inputs of the first steps of an epoch, where inputs are gathered on the way.

        Raises:
            Left: see views; without a pace.
        """
        if (views := self.material.views) is not None:
            items_N, draws_N = epoch_order(len(self.material.train), self.seed, 0)
            seen = slice(num_steps * self.batch_size)
            with self._untimed():
                views.gather_some(items_N[seen], draws_N[seen])

    def gather_all(self) -> None:
        """Every training input, as far as the time allows; all that an earlier attempt had, where one trained on them.

        Raises:
            Left: see views; without a pace.
        """
        # Whoever resumes without time for a step serves what was learned, and needs no inputs.
        is_over = self.is_short or (self.snapshot is not None and self.must_end())
        if (views := self.material.views) is not None and not is_over:
            with self._untimed():
                views.gather_all(None if self.planned_epochs else self.deadline)
            self.start_facts = self.start_facts | {"views": len(views)}

    @contextmanager
    def _untimed(self) -> Iterator[None]:
        """Gathering is no training: an attempt that finds its activations cached counts them as extractions."""
        began = time.monotonic()
        try:
            yield
        except features.Left as left_off:
            if self.pace is None:
                raise
            self.is_short = True
            self.pace.skip("training", f"the time is over; {left_off}")
        self._began += time.monotonic() - began

    def reset(self) -> None:
        """Brings what is trained back to the start."""
        with torch.no_grad():
            for name, value in self.initial.items():
                self.trainable[name].copy_(value)

    @property
    def train_by(self) -> float | None:
        """When the last step must have ended, by `time.monotonic`: before the looks that follow it. None for no end."""
        if self.deadline is None:
            return None
        # At the state of an epoch that was left, and at what is served.
        num_looks = 2 + (soup.NUM_STATES - 1) * self.options.soup + len(soup.SHARES) * self.options.wise
        return self.deadline - num_looks * self.look_seconds

    def must_end(self) -> bool:
        """Whether the time is over or the owner wants what there is."""
        train_by = self.train_by
        late = train_by is not None and time.monotonic() >= train_by
        return late or self.is_short or self.context.reporter.stop_requested

    def look(self, trainer: Trainer) -> Check:
        """The network as it stands on the hold-out."""
        held, began = self.material.held, time.monotonic()
        found = checks.check(loop.predict(trainer, held), held.labels_N, 0)
        self.look_seconds = time.monotonic() - began
        return found

    def warn(self, message: str) -> None:
        """Tells the job's log."""
        self.context.reporter.log(message, "warning")

    def save(self, phase: str, step: int, tensors: dict[str, Tensor], **facts: Any) -> None:
        """Writes a checkpoint: what every one carries, and this phase's own."""
        carried = {
            **self.start_facts,
            "phase": phase,
            "pilots": self.pilots,
            "planned_epochs": self.planned_epochs,
            "seconds": self.seconds,
            "job_seconds": self._job_spent + self.context.reporter.elapsed_seconds,
        }
        self.checkpoints.write(Snapshot(self.pilot_steps + step, self.start_tensors | tensors, carried | facts))
