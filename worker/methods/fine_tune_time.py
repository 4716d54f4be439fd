"""The time of a fine-tuning job that has a bound: how it is shared out, and what is given up for it, in which order.

The transfer and each of the two networks from scratch have a third, so that there is a verdict, and a fair one: a
network from scratch with less time than the transfer would flatter it, and one whose time the training took says
nothing. In the transfer's third, views beyond the plain one, probes of what a label minds, pilots and epochs are given
up, as far as MIN_EPOCHS remain; only then the networks from scratch, whose time training has; then the training; and at
last images, of which an excerpt remains. The probe and its scoring stay: they are what a job ends with at least. Every
step that is left out is a decision, with its forecast. docs/auto.md has the reasons.
"""

import time
from functools import cache

from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.prepared import Prepared
from worker.contract.excerpt import Excerpt
from worker.contract.outcome import Decision
from worker.contract.task import Task
from worker.fine_tuning import forward
from worker.fine_tuning.workbench import Pace
from worker.methods import gathering
from worker.methods.clock import Clock
from worker.methods.gathering import Wanted
from worker.methods.reference import MIN_SECONDS, TORCH_SECONDS, fit_seconds

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


class Limit:
    """The bound of one job.

    Args:
        task: its data; the context's reporter has the clock.
        minutes: of the job, over all attempts.
        scope: of the training.
    """

    def __init__(self, task: Task, minutes: float, scope: str) -> None:
        self.clock = Clock(task, 60 * minutes)
        self._reporter = task.context.reporter
        self.excerpt: Excerpt | None = None
        self.num_rows: int | None = None
        self._export_seconds = self.clock.slowness * EXPORT_SECONDS.get(scope, WHOLE_EXPORT_SECONDS)
        self._train_by = self._alone_by = self._shared_by = self.clock.limit_seconds
        self._is_shared = True
        self._after_seconds = 0.0
        # To decode one and pass it through, once the features are there.
        self.image_seconds = 0.0

    @property
    def decisions(self) -> list[Decision]:
        """What was left out, and why."""
        return self.clock.decisions

    def gather(self, task: Task, source: Prepared, num_rows: int | None) -> tuple[Task, Extraction]:
        """Features of all images into the cache, or of as many as the time holds; the task with these alone.

        Args:
            task: the data, watched.
            source: the backbone, with the input size of the features.
            num_rows: of the excerpt, where an earlier attempt has begun with one.
        """
        opened = cache(lambda: forward.extractor(task, source))
        wanted = Wanted(
            source,
            extract=lambda rows: forward.frozen(task, source, rows, opened)[1],
            num_missing=lambda rows: forward.num_missing(task, source, rows),
            scored=task.to_score,
            # At another resolution the frozen baseline needs the backbone's own features as well.
            passes=1 if source.preprocess == task.backbone.preprocess else 2,
        )
        found = gathering.gather(self.clock, task, wanted, num_rows=num_rows)
        self.excerpt, self.num_rows = found.part, found.num_rows
        return found.part.of(task) if found.part else task, found.extraction

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
        self.image_seconds = self.clock.pace(task, source, lambda: forward.extractor(task, source))
        # A trained network has to see them again.
        self._after_seconds = self.clock.following(len(task.to_score), self.image_seconds)
        # The baseline stands on the backbone's own resolution.
        own = features.num_missing(task.context, task.index, task.pool, task.backbone) * self.image_seconds
        fit = self.clock.slowness * (1.0 + fit_seconds(len(task.pool), source.feature_dim, task.num_classes))
        end = self.compared_by_seconds - own - fit
        self._alone_by = end - self._export_seconds
        # Each network from scratch has what the transfer took, features that were in the cache counted in.
        cached = extraction.num_cached * self.image_seconds
        third = (end - TORCH_SECONDS - 2 * cached) / 3
        if third + cached < MIN_SECONDS:
            third = end - TORCH_SECONDS - 2 * MIN_SECONDS
        self._shared_by = TRANSFER_SHARE * third - self._export_seconds
        self.share(len(task.pool) * (gather + epochs * step) * self.image_seconds)

    def share(self, needed: float) -> None:
        """Leaves the networks from scratch their time, if what a training needs at least fits what is left beside it.

        Args:
            needed: seconds, of its inputs and the fewest epochs; asked again once a step was timed.
        """
        left = max(0.0, self._shared_by - self._reporter.elapsed_seconds)
        is_shared = needed <= left
        self._train_by = self.clock.leave_at = self._shared_by if is_shared else self._alone_by
        if self._is_shared and not is_shared:
            self._reporter.log(
                f"baseline from scratch: its time is the training's, whose fewest epochs, {needed:.1f} s, do not fit "
                f"the {left:.1f} s beside two networks from scratch; if it ends early, they are trained all the same",
                "warning",
            )
        self._is_shared = is_shared

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
        return self.clock.limit_seconds - self._after_seconds

    def allows(self, step: str, num_images: int, share: float = 1.0, *, passes: float = 1.0) -> bool:
        """Whether the forecast of passing so many images fits a share of the time that is left; says where not."""
        return self.allows_seconds(step, num_images * passes * self.image_seconds, share)

    def allows_seconds(self, step: str, forecast: float, share: float = 1.0) -> bool:
        """Whether a forecast fits a share of the time that is left; says where not."""
        left = max(0.0, self.left_seconds)
        if forecast <= share * left:
            return True
        part = "" if share == 1 else f"{share:.0%} of "
        self.clock.skip(
            step, f"its forecast of {forecast:.1f} s does not fit {part}the {left:.1f} s left to train", forecast
        )
        return False

    def pace(self, step_passes: float, gather_passes: float, step_seconds: float | None) -> Pace:
        """What the phases of the training are to be planned by.

        Args:
            step_passes: passes of the network that a step takes for each image.
            gather_passes: that it takes to gather the inputs of an image.
            step_seconds: of a step for each image, where one was timed.
        """
        return Pace(
            step_seconds=self.image_seconds * step_passes if step_seconds is None else step_seconds,
            gather_seconds=self.image_seconds * gather_passes,
            pilots_by=time.monotonic() + PILOTS_SHARE * max(0.0, self.left_seconds),
            skip=self.clock.skip,
        )

    def trained(self) -> None:
        """From here on nothing is left unfinished: it is what is served, and what the report must have."""
        self.clock.leave_at = float("inf")
