"""The time of an adaptation: what each candidate is expected to take, and when a training has to be left."""

from app.recipes import Adapt
from worker.contract.task import Task
from worker.domains.fits import CLOSED, SOURCE_ONLY, TRAINED
from worker.methods.adapt_candidates import BATCH_NORM, Unfinished
from worker.methods.reference import SLACK_SECONDS, TORCH_SECONDS, seconds_per_image

# Forecasts in seconds of what cannot be timed before it has run.
TRAINING_SECONDS, EXPORT_SECONDS = 25.0, 12.0
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
    """

    def __init__(self, recipe: Adapt, task: Task, num_images: int) -> None:
        self._limit_seconds = 60 * recipe.max_minutes
        self._task, self._reporter, self._num_images = task, task.context.reporter, num_images
        self._training_seconds = TORCH_SECONDS + TRAINING_SECONDS
        self._closed_seconds = 0.0

    @property
    def left_seconds(self) -> float:
        """What is left of the recipe's time."""
        return self._limit_seconds - self._reporter.elapsed_seconds

    def forecast(self, name: str) -> float:
        """Seconds that a candidate is expected to take."""
        if name in CLOSED:
            return self._closed_seconds
        if name != BATCH_NORM:
            return self._training_seconds
        passes = 2 * self._num_images * TORCH_SLOWNESS * seconds_per_image(self._task)
        return TORCH_SECONDS + passes + self._closed_seconds + EXPORT_SECONDS

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
