"""The time of an adaptation: what each candidate is expected to take, and when a training has to be left."""

from app.recipes import Adapt
from worker.attempt.progress import SLACK_SECONDS
from worker.contract.task import Task
from worker.domains.fits import CLOSED, SOURCE_ONLY, TRAINED
from worker.methods.adapt_candidates import BATCH_NORM, Unfinished
from worker.methods.clock import Clock
from worker.methods.reference import TORCH_SECONDS, fit_seconds

# Forecasts in seconds, on a machine at rest, of what cannot be timed before it has run.
TRAINING_SECONDS, EXPORT_SECONDS = 25.0, 12.0
# Fits of both domains that the source's probe and the look at it take: by cross-validation on everything and on either
# half, and the ways back. Measured: 2 with 200 images, 4 to 7 with 600 to 1,700.
SOURCE_FITS = 5.0
# A closed form is the source's own fit and, at worst, a few decompositions of D x D: against the time of that fit.
CLOSED_SLOWNESS = 3.0
# A pass of torch over images, against one of the exported graph.
TORCH_SLOWNESS = 4.0
STEPS_BETWEEN_LOOKS = 25


class Budget:
    """The minutes of a recipe, and what candidates that have run tell of the others.

    Args:
        recipe: has the minutes.
        task: whose job counts them.
        num_images: of both domains.
        clock: knows what an image takes, and how slow the machine is.
    """

    def __init__(self, recipe: Adapt, task: Task, num_images: int, clock: Clock) -> None:
        self._limit_seconds = 60 * recipe.max_minutes
        self._task, self._reporter, self._num_images, self._clock = task, task.context.reporter, num_images, clock
        self._training_seconds = clock.slowness * (TORCH_SECONDS + TRAINING_SECONDS)
        fit = fit_seconds(num_images, task.backbone.feature_dim, task.num_classes)
        self._source_seconds = clock.slowness * SOURCE_FITS * fit
        self._closed_seconds = 0.0

    @property
    def left_seconds(self) -> float:
        """What is left of the recipe's time; below zero where it is over."""
        return self._limit_seconds - self._reporter.elapsed_seconds

    def forecast(self, name: str) -> float:
        """Seconds that a candidate is expected to take, at least.

        Images are timed, where that was not done before, only if there is time for what else it takes.
        """
        if name == SOURCE_ONLY:
            return self._source_seconds
        if name in CLOSED:
            return self._closed_seconds
        if name != BATCH_NORM:
            return self._training_seconds
        beside = self._clock.slowness * (TORCH_SECONDS + EXPORT_SECONDS) + self._closed_seconds
        if beside > self.left_seconds and self._clock.known_pace(self._task.backbone) is None:
            return beside
        return beside + 2 * self._num_images * TORCH_SLOWNESS * self._clock.pace(self._task)

    def ran(self, name: str, seconds: float) -> None:
        """Learns from a candidate that has run: the source's own fit is what all closed forms are forecast by."""
        if name == SOURCE_ONLY:
            self._closed_seconds = CLOSED_SLOWNESS * seconds
        if name in TRAINED:
            self._training_seconds = seconds

    def look(self, step: int) -> None:
        """Called with every step of a training.

        Raises:
            Unfinished: it has to end.
            Yielded: the worker shuts down.
        """
        if step % STEPS_BETWEEN_LOOKS == 0:
            self._reporter.check_yield()
            if self._reporter.stop_requested:
                raise Unfinished("the job was asked to stop while it trained")
            if self._reporter.elapsed_seconds > self._limit_seconds + SLACK_SECONDS:
                raise Unfinished("it trained longer than its forecast, and beyond the time")
