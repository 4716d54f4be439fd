"""The time that a job keeps: its limit, what an image takes here, and what must follow whatever is tried. Torch-free.

`auto` and a bounded `fine_tune` share it; how they spend their time is theirs (`auto.budget`, `fine_tune_time`). Images
are timed on this machine; what does not grow with them is known in seconds from machines at rest, and is multiplied by
how much slower others make this one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial

from worker.attempt import machine
from worker.backbones.extraction import TIMED_IMAGES, Extraction
from worker.backbones.features import Extractor
from worker.backbones.prepared import Prepared
from worker.contract.outcome import Decision
from worker.contract.task import Float, Rows, Task
from worker.methods.reference import seconds_per_image

# Assembling, storing and the report's own figures.
FINISH_SECONDS = 1.0
# Of the time that is left beside what must follow: nothing of what is served waits for a forecast.
FORESEEN_SHARE = 0.25
# A gradient step on cached activations of an image against extracting them.
CACHED_SHARE = 0.4
# A gradient step through the whole network against decoding and one pass forward, which a CPU makes in a graph that is
# several times as fast as the network.
WHOLE_SHARE = {"cpu": 8.0, "cuda": 3.0}


class Clock:
    """The time of one job, from the moment that its worker started it.

    Args:
        task: its data; the context's reporter has the time.
        limit_seconds: of the job.
    """

    def __init__(self, task: Task, limit_seconds: float) -> None:
        self._reporter = task.context.reporter
        self.limit_seconds = limit_seconds
        self.decisions: list[Decision] = []
        self.slowness = machine.slowness()
        # From when on extractions are left, and whether a stop is heard, too.
        self.leave_at = float("inf")
        self._hears_stop = False
        self._image_seconds: dict[tuple[str, str], float] = {}
        # What was extracted to time it, and is not counted yet.
        self._timed: dict[tuple[str, str], Extraction] = {}
        self._following = FINISH_SECONDS * self.slowness

    @property
    def elapsed_seconds(self) -> float:
        """Since the job began."""
        return self._reporter.elapsed_seconds

    @property
    def left_seconds(self) -> float:
        """Until the limit."""
        return self.limit_seconds - self._reporter.elapsed_seconds

    @property
    def stop_requested(self) -> bool:
        """Whether the owner wants what there is by now."""
        return self._reporter.stop_requested

    @property
    def finish_seconds(self) -> float:
        """What every job ends with."""
        return self.slowness * FINISH_SECONDS

    def spend(self, seconds: float) -> None:
        """Takes off what earlier attempts have spent."""
        self.limit_seconds -= seconds

    def watch(self, task: Task) -> Task:
        """The same task, whose extractions are left when their time is over, and whose forecasts keep to the time."""
        plain, context = task.foresee, replace(task.context, leaves=self._leaves)

        def foresee(
            task: Task,
            feats_PD: Float,
            num_learned: int | None = None,
            num_test: int | None = None,
            left: Callable[[], float] | None = None,
        ) -> None:
            by_seconds = self.elapsed_seconds + FORESEEN_SHARE * (self.left_seconds - self._following)
            plain(task, feats_PD, num_learned, num_test, left or (lambda: by_seconds - self.elapsed_seconds))

        return replace(task, context=context, foresee=foresee)

    def _leaves(self) -> bool:
        if self._hears_stop and self._reporter.stop_requested:
            return True
        return self._reporter.elapsed_seconds > self.leave_at

    @contextmanager
    def leaving(self, at_seconds: float, *, hears_stop: bool = False) -> Iterator[None]:
        """Extractions within are left from then on.

        Args:
            at_seconds: from the job's beginning.
            hears_stop: whether they are left when the job is asked to stop, too.
        """
        before = self.leave_at, self._hears_stop
        self.leave_at, self._hears_stop = at_seconds, hears_stop
        try:
            yield
        finally:
            self.leave_at, self._hears_stop = before

    def learn_pace(self, backbone: Prepared, extraction: Extraction) -> None:
        """Takes the pace of an extraction that was long enough to tell it."""
        if (seconds := extraction.image_seconds) is not None:
            self._image_seconds[_key(backbone)] = seconds

    def known_pace(self, backbone: Prepared) -> float | None:
        """Seconds of an image, where they are known already."""
        return self._image_seconds.get(_key(backbone))

    def counted(self, backbone: Prepared, extraction: Extraction) -> Extraction:
        """With the images that this job has extracted to time them, and has found in the cache since: once."""
        timed = self._timed.pop(_key(backbone), None)
        if timed is None or not timed.num_extracted:
            return extraction
        num = min(timed.num_extracted, extraction.num_cached)
        seconds = extraction.seconds + timed.seconds * num / timed.num_extracted
        return Extraction(extraction.num_cached - num, extraction.num_extracted + num, seconds)

    def pace(
        self,
        task: Task,
        backbone: Prepared | None = None,
        run: Callable[[], Extractor] | None = None,
        rows: Rows | None = None,
    ) -> float:
        """Seconds to decode an image and pass it through: of an extraction, or timed once.

        Args:
            task: the data.
            backbone: with the input size that is wanted; the task's own by default.
            run: opens what passes images of that size; by default the backbone's own extractor.
            rows: that are wanted soon, to be timed on; by default any to learn from.
        """
        backbone = backbone or task.backbone
        key = _key(backbone)
        if key not in self._image_seconds:
            rows = (task.pool if rows is None else rows)[:TIMED_IMAGES]
            kept = partial(self._timed.__setitem__, key)
            self._image_seconds[key] = seconds_per_image(task, backbone, rows, run, kept)
        return self._image_seconds[key]

    def following(self, num_passed: int, image_seconds: float) -> float:
        """What must follow: scoring, and publication.

        Args:
            num_passed: images that have to pass the network for it.
            image_seconds: that one takes.
        """
        self._following = self.finish_seconds + num_passed * image_seconds
        return self._following

    def skip(self, step: str, reason: str, forecast: float | None = None) -> None:
        """Writes down what is left out, and tells it."""
        decision = Decision(step, "skipped", reason, forecast_seconds=forecast and round(forecast, 2))
        self.decisions.append(decision)
        self._reporter.log(f"{step}: skipped, {reason}", "warning", **asdict(decision))


def _key(backbone: Prepared) -> tuple[str, str]:
    """What the pace of an image depends on."""
    return backbone.digest, backbone.preprocess.digest
