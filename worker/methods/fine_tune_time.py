"""The time of a fine-tuning job that has a bound: how it is shared out, and what is given up for it, in which order.

The transfer and each of the two networks from scratch have a third, so that there is a verdict, and a fair one: a
network from scratch with less time than the transfer would flatter it, and one whose time the training took says
nothing. In the transfer's third, views beyond the plain one, probes of what a label minds, pilots and epochs are given
up, as far as MIN_EPOCHS remain; only then the networks from scratch, whose time training has; then the training; and at
last images, of which an excerpt remains. The probe and its scoring stay: they are what a job ends with at least. Every
step that is left out is a decision, with its forecast. docs/auto.md has the reasons.
"""

import time
from dataclasses import asdict, replace
from functools import cache

import numpy as np

from worker.attempt import machine
from worker.attempt.context import never
from worker.backbones import features
from worker.backbones.features import Extraction
from worker.backbones.prepared import Prepared
from worker.contract import excerpt
from worker.contract.excerpt import Excerpt
from worker.contract.outcome import Decision
from worker.contract.task import Rows, Task
from worker.fine_tuning import forward
from worker.fine_tuning.workbench import Pace
from worker.methods.auto_budget import FINISH_SECONDS
from worker.methods.reference import MIN_SECONDS, TIMED_IMAGES, TORCH_SECONDS, fit_seconds, seconds_per_image

# Of the time that training has: a probe of what the label minds starts within the first, all pilots end within the
# second.
PROBE_SHARE, PILOTS_SHARE = 0.25, 1 / 3
# Fewer epochs than these, a quarter of the default, are no training to compare with: the networks from scratch are
# given up first.
MIN_EPOCHS = 5
# Of the time that the networks from scratch leave: they start only if what the transfer really took still fits.
TRANSFER_SHARE = 0.95
# Seconds on two cores that have nothing else to do: the last stage of EfficientNet-Lite0, and the whole of it.
EXPORT_SECONDS = {"head": 0.0, "last_stage": 6.0}
WHOLE_EXPORT_SECONDS = 12.0
# Fits on the features of each image: the head that training starts from, the frozen baseline, the forecast.
NUM_FITS = 3


class Limit:
    """The bound of one job.

    Args:
        task: its data; the context's reporter has the clock.
        minutes: of the job, over all attempts.
        scope: of the training.
    """

    def __init__(self, task: Task, minutes: float, scope: str) -> None:
        self._reporter = task.context.reporter
        self.limit_seconds = 60 * minutes
        self.decisions: list[Decision] = []
        self.excerpt: Excerpt | None = None
        self.num_rows: int | None = None
        # What is not made of images is known from machines at rest, and takes longer here by as much.
        self._slowness = machine.slowness()
        self._export_seconds = self._slowness * EXPORT_SECONDS.get(scope, WHOLE_EXPORT_SECONDS)
        self._leave_at = float("inf")
        self._train_by = self._alone_by = self._shared_by = self.limit_seconds
        self._is_shared = True
        self._after_seconds = 0.0
        self._image_seconds = 0.0

    def watch(self, task: Task) -> Task:
        """The same task, whose extractions are left when their time is over."""
        return replace(task, context=replace(task.context, leaves=self._leaves))

    def _leaves(self) -> bool:
        return self._reporter.elapsed_seconds > self._leave_at

    def spend(self, seconds: float) -> None:
        """Takes off what earlier attempts have spent."""
        self.limit_seconds -= seconds

    def gather(self, task: Task, source: Prepared, num_rows: int | None) -> tuple[Task, Extraction]:
        """Features of all images into the cache, or of as many as the time holds; the task with these alone.

        Args:
            task: the data, watched.
            source: the backbone, with the input size of the features.
            num_rows: of the excerpt, where an earlier attempt has begun with one.
        """
        scored = _scored(task)
        ordered, num_first = excerpt.order(task.labels_N, task.pool, scored, task.seed)
        opened = cache(lambda: forward.extractor(task, source))
        whole = replace(task, context=replace(task.context, leaves=never))

        def extract(rows: Rows, may_leave: bool) -> Extraction:
            return forward.frozen(task if may_leave else whole, source, rows, opened)[1]

        def num_fitting(pace: float) -> float:
            # At another resolution the frozen baseline needs the backbone's own features as well.
            passes = 1 if source.preprocess == task.backbone.preprocess else 2
            fit = self._slowness * NUM_FITS * fit_seconds(1000, source.feature_dim, task.num_classes) / 1000
            left = self.limit_seconds - self._finish_seconds - self._reporter.elapsed_seconds
            return left / (passes * pace + fit)

        self._leave_at = self.limit_seconds - self._finish_seconds
        if num_rows is None:
            num_rows, extractions = excerpt.grow(
                ordered, num_first, extract, lambda rows: forward.num_missing(task, source, rows), num_fitting
            )
        else:
            extractions = [extract(ordered[:num_rows], False)]
        self.num_rows = num_rows
        if num_rows < len(ordered):
            self._leave_out(excerpt.chosen(ordered, num_rows, task, scored), task, len(scored))
            assert self.excerpt is not None
            task = self.excerpt.of(task)
        return task, forward.total(extractions)

    def _leave_out(self, part: Excerpt, task: Task, num_scored: int) -> None:
        self.excerpt = part
        self.skip(
            "features of all images",
            f"the time holds {len(part.pool)} of {len(task.pool)} images to learn from and {len(part.scored)} of "
            f"{num_scored} test images, drawn by class; the others are not looked at",
        )

    def plan(
        self, task: Task, source: Prepared, extraction: Extraction, step: float, gather: float, epochs: int
    ) -> None:
        """Shares out the rest of the time.

        Args:
            task: the data, or the excerpt of it.
            source: the backbone, with the input size of the features.
            extraction: of the features.
            step: passes of the network that a step takes for each image.
            gather: passes that it takes to gather the inputs of an image.
            epochs: fewer are no training to compare with.
        """
        self._image_seconds = _pace(task, source, extraction)
        self._after_seconds = self._finish_seconds + self.num_scored(task) * self._image_seconds
        # The baseline stands on the backbone's own resolution.
        own = features.num_missing(task.context, task.index, task.pool, task.backbone) * self._image_seconds
        fit = self._slowness * (1.0 + fit_seconds(len(task.pool), source.feature_dim, task.num_classes))
        end = self.compared_by_seconds - own - fit
        self._alone_by = end - self._export_seconds
        # Each network from scratch has what the transfer took, features that were in the cache counted in.
        cached = extraction.num_cached * self._image_seconds
        third = (end - TORCH_SECONDS - 2 * cached) / 3
        if third + cached < MIN_SECONDS:
            third = end - TORCH_SECONDS - 2 * MIN_SECONDS
        self._shared_by = TRANSFER_SHARE * third - self._export_seconds
        self.share(len(task.pool) * (gather + epochs * step) * self._image_seconds)

    def share(self, needed: float) -> None:
        """Leaves the networks from scratch their time, if what a training needs at least fits what is left beside it.

        Args:
            needed: seconds, of its inputs and the fewest epochs; asked again once a step was timed.
        """
        left = max(0.0, self._shared_by - self._reporter.elapsed_seconds)
        is_shared = needed <= left
        self._train_by = self._leave_at = self._shared_by if is_shared else self._alone_by
        if self._is_shared and not is_shared:
            self._reporter.log(
                f"baseline from scratch: its time is the training's, whose fewest epochs, {needed:.1f} s, do not fit "
                f"the {left:.1f} s beside two networks from scratch; if it ends early, they are trained all the same",
                "warning",
            )
        self._is_shared = is_shared

    def num_scored(self, task: Task) -> int:
        """Images that are scored in the end."""
        return len(_scored(task)) if self.excerpt is None else len(self.excerpt.scored)

    def left_out(self, task: Task) -> dict[str, int]:
        """How many images the excerpt does not have."""
        assert self.excerpt is not None
        num = len(task.index) - len(self.excerpt.pool) - len(self.excerpt.scored)
        return {"learn": len(task.left_out), "test": num - len(task.left_out)}

    @property
    def _finish_seconds(self) -> float:
        return self._slowness * FINISH_SECONDS

    @property
    def left_seconds(self) -> float:
        """Until training must have ended."""
        return self._train_by - self._reporter.elapsed_seconds

    @property
    def deadline(self) -> float:
        """The same moment, by `time.monotonic`."""
        return time.monotonic() + self.left_seconds

    @property
    def compared_by_seconds(self) -> float:
        """When the networks from scratch must have ended, from the job's beginning."""
        return self.limit_seconds - self._after_seconds

    def allows(self, step: str, num_images: int, share: float = 1.0, *, passes: float = 1.0) -> bool:
        """Whether the forecast of passing so many images fits a share of the time that is left; says where not."""
        return self.allows_seconds(step, num_images * passes * self._image_seconds, share)

    def allows_seconds(self, step: str, forecast: float, share: float = 1.0) -> bool:
        """Whether a forecast fits a share of the time that is left; says where not."""
        left = max(0.0, self.left_seconds)
        if forecast <= share * left:
            return True
        part = "" if share == 1 else f"{share:.0%} of "
        self.skip(step, f"its forecast of {forecast:.1f} s does not fit {part}the {left:.1f} s left to train", forecast)
        return False

    def skip(self, step: str, reason: str, forecast: float | None = None) -> None:
        """Writes down what is left out, and tells it."""
        decision = Decision(step, "skipped", reason, forecast_seconds=forecast and round(forecast, 2))
        self.decisions.append(decision)
        self._reporter.log(f"{step}: skipped, {reason}", "warning", **asdict(decision))

    def pace(self, step_passes: float, gather_passes: float, step_seconds: float | None) -> Pace:
        """What the phases of the training are to be planned by.

        Args:
            step_passes: passes of the network that a step takes for each image.
            gather_passes: that it takes to gather the inputs of an image.
            step_seconds: of a step for each image, where one was timed.
        """
        return Pace(
            step_seconds=self._image_seconds * step_passes if step_seconds is None else step_seconds,
            gather_seconds=self._image_seconds * gather_passes,
            pilots_by=time.monotonic() + PILOTS_SHARE * max(0.0, self.left_seconds),
            skip=self.skip,
        )

    def trained(self) -> None:
        """From here on nothing is left unfinished: it is what is served, and what the report must have."""
        self._leave_at = float("inf")


def _scored(task: Task) -> Rows:
    """What is not learned from: the test split, or a fold."""
    return np.setdiff1d(np.arange(len(task.index)), task.pool)


def _pace(task: Task, source: Prepared, extraction: Extraction) -> float:
    """Seconds to decode an image and pass it through: as it was, or timed on a few where features were cached."""
    if extraction.num_extracted >= TIMED_IMAGES:
        return extraction.seconds / extraction.num_extracted
    return seconds_per_image(task, source.preprocess, forward.extractor(task, source))
