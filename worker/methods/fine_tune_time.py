"""The time of a fine-tuning job that has a bound, and what is given up for it, in which order.

First the networks from scratch that the report compares with, then views beyond the plain one, the probes of what a
label minds, the pilots of the learning rate, epochs, and at last the training. The features, the probe on them and the
scoring stay: they are what is served. Every step that is left out is a decision, with its forecast.
"""

import time
from dataclasses import asdict, replace

import numpy as np

from app.errors import JobFailure
from worker import features, forward
from worker.evaluate import supplement
from worker.features import Extraction
from worker.methods.auto_budget import EXPORT_SECONDS, FINISH_SECONDS
from worker.methods.outcome import Decision
from worker.methods.reference import SLACK_SECONDS, TIMED_IMAGES, fit_seconds
from worker.methods.task import Task
from worker.prepared import Prepared
from worker.workbench import Pace

# Of the time that training has: a probe of what the label minds starts within the first, all pilots end within the
# second.
PROBE_SHARE, PILOTS_SHARE = 0.25, 1 / 3


class Limit:
    """The bound of one job.

    Args:
        task: its data; the context's reporter has the clock.
        minutes: of the job, over all attempts.
    """

    def __init__(self, task: Task, minutes: float) -> None:
        self._reporter, self._document = task.context.reporter, task.context.document
        self.limit_seconds = 60 * minutes
        self.decisions: list[Decision] = []
        self._leave_at = self.limit_seconds + SLACK_SECONDS
        self._train_by = self.limit_seconds
        self._after_seconds = 0.0
        self._image_seconds = 0.0

    def watch(self, task: Task) -> Task:
        """The same task, whose extractions are left when their time is over; the first has the slack, too."""
        return replace(task, context=replace(task.context, leaves=self._leaves))

    def _leaves(self) -> bool:
        return self._reporter.elapsed_seconds > self._leave_at

    def spend(self, seconds: float) -> None:
        """Takes off what earlier attempts have spent."""
        self.limit_seconds -= seconds
        self._leave_at -= seconds

    def first_left(self, left_off: features.Left) -> JobFailure:
        """What becomes of a job whose first features did not fit."""
        return JobFailure(
            "timed_out",
            f"expected the features within {self.limit_seconds:.0f} s and {SLACK_SECONDS:.0f} s more; found that "
            f"{left_off}; raise max_minutes, or run the job again: it goes on from there",
        )

    def plan(self, task: Task, source: Prepared, extraction: Extraction) -> None:
        """Measures the pace, and sets aside what must follow the training: export, scoring, the frozen baseline."""
        self._image_seconds = _pace(task, source, extraction)
        num_scored = len(np.setdiff1d(np.arange(len(task.index)), task.pool))
        images = num_scored
        if self._document.report_mode == "full":
            images += supplement.num_passes(num_scored)
        self._after_seconds = FINISH_SECONDS + images * self._image_seconds
        # The baseline stands on the backbone's own resolution.
        own = features.num_missing(task.context, task.index, task.pool, task.backbone) * self._image_seconds
        fit = 1.0 + fit_seconds(len(task.pool), source.feature_dim, task.num_classes)
        self._train_by = self._leave_at = self.limit_seconds - self._after_seconds - EXPORT_SECONDS - own - fit

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
        forecast, left = num_images * passes * self._image_seconds, max(0.0, self.left_seconds)
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

    def pace(self, step_passes: float, gather_passes: float) -> Pace:
        """What the phases of the training are to be planned by, from passes of the network for each image."""
        return Pace(
            step_seconds=self._image_seconds * step_passes,
            gather_seconds=self._image_seconds * gather_passes,
            pilots_by=time.monotonic() + PILOTS_SHARE * max(0.0, self.left_seconds),
            skip=self.skip,
        )

    def trained(self) -> None:
        """From here on nothing is left unfinished: it is what is served, and what the report must have."""
        self._leave_at = float("inf")


def _pace(task: Task, source: Prepared, extraction: Extraction) -> float:
    """Seconds to decode an image and pass it through: as it was, or timed on a few where features were cached."""
    if extraction.num_extracted >= TIMED_IMAGES:
        return extraction.seconds / extraction.num_extracted
    run, rows = forward.extractor(task, source), task.pool[:TIMED_IMAGES]
    began = time.monotonic()
    for _, images in features.decoded(task.context, task.index, rows, source.preprocess):
        run(images)
    return (time.monotonic() - began) / len(rows)
