"""`auto`: tries what fits the data and the time, cheapest first, and serves the best. Every decision is written down.

The procedure of docs/methods.md for the methods that are built: the frozen probe on each candidate backbone, then LP-FT
of the last stage where there are enough images for it. Scores are paired on items that neither model has learned from;
the one-standard-error rule leans towards the cheaper (a rule that waits for a significant difference would accept a
true gain of four points one time in eight with 38 items). A step starts only when its forecast, and what must follow
it, fit the time.
"""

from dataclasses import asdict, replace
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import JobFailure
from app.recipes import Auto, FineTune, LinearProbe
from worker import features
from worker.evaluate import selection
from worker.evaluate.selection import one_standard_error
from worker.methods import linear_probe
from worker.methods.contract import Candidate, Decision, Outcome, Rows, Task
from worker.methods.reference import SLACK_SECONDS, forecast_scratch, seconds_per_image, wall_seconds
from worker.prepared import Prepared

DEFAULT_MINUTES = {"cpu": 5.0, "cuda": 30.0}
MIN_MEDIAN_IMAGES = 20
MIN_IMAGES = 1000
VIEWS = 4
EPOCHS = 20
# Forecasts in seconds of what does not grow with the data: importing torch, exporting the trained stage, the probe.
TORCH_SECONDS, EXPORT_SECONDS, PROBE_SECONDS = 6.0, 6.0, 2.0
# Training on cached activations against extracting them, per image and epoch (benchmarks/fine_tune.py).
TRAIN_SHARE = 0.4
Z95 = 1.96


def run(recipe: Auto, task: Task) -> Outcome:
    """Chooses backbone and method by selection data, inside the budget."""
    minutes = recipe.max_minutes or DEFAULT_MINUTES[task.context.device]
    search = _Search(recipe, task, minutes * 60)
    probe = search.choose_backbone()
    chosen = search.choose_method(probe)
    # The whole search is what this transfer took; a baseline from scratch gets the same.
    served = replace(chosen, seconds=max(chosen.seconds, search.seconds))
    return Outcome(served, tuple(search.decisions), probe if chosen is not probe else served, search.limit_seconds)


def cost(backbone: Prepared) -> float:
    """What an image costs, relative to other backbones: input pixels times parameters.

    Not a stop watch: the same data and seed must choose the same backbone on a busy machine.
    """
    return backbone.preprocess.height * backbone.preprocess.width * backbone.num_params / 1e12


class _Search:
    """The budget, and the decisions so far."""

    def __init__(self, recipe: Auto, task: Task, limit_seconds: float) -> None:
        self.decisions: list[Decision] = []
        self.limit_seconds = limit_seconds
        self._recipe, self._task, self._reporter = recipe, task, task.context.reporter
        self._began = monotonic()

    @property
    def seconds(self) -> float:
        """Time since the search began."""
        return monotonic() - self._began

    def choose_backbone(self) -> Candidate:
        """A frozen probe on each candidate backbone that fits the time; the best by the one-standard-error rule."""
        found: list[Candidate] = []
        for backbone in sorted(self._task.backbones, key=cost):
            candidate = self._probe(backbone, first=not found)
            if candidate is not None:
                found.append(candidate)
        if len(found) == 1:
            return found[0]
        rows = self._task.pool
        scored = [
            selection.Candidate(candidate.backbone.name, cost(candidate.backbone), self._scores(candidate, rows))
            for candidate in found
        ]
        choice = one_standard_error(scored)
        for reason in choice.reasons:
            self._decide(
                f"backbone {reason.name}", "kept" if reason.chosen else "dropped", reason.text, score=reason.mean
            )
        return found[choice.index]

    def choose_method(self, probe: Candidate) -> Candidate:
        """The probe, or the fine-tuned last stage where it pays."""
        tuned = self._fine_tune(probe)
        if tuned is None:
            self._decide("served", "served", f"{probe.name}: nothing else was tried")
            return probe
        rows = np.intersect1d(tuned.selection.rows, probe.selection.rows)
        scored = [
            selection.Candidate(candidate.name, candidate.seconds, self._scores(candidate, rows))
            for candidate in (probe, tuned)
        ]
        choice = one_standard_error(scored)
        for reason in choice.reasons:
            self._decide(reason.name, "kept" if reason.chosen else "dropped", reason.text, score=reason.mean)
        self._decide("served", "served", choice.reasons[choice.index].text)
        return (probe, tuned)[choice.index]

    def _probe(self, backbone: Prepared, *, first: bool) -> Candidate | None:
        task = replace(self._task, backbone=backbone)
        step = f"probe on {backbone.name}"
        if not first and self._asked_to_stop(step):
            return None
        missing = features.num_missing(task.context, task.index, task.pool, backbone)
        forecast = PROBE_SECONDS + (seconds_per_image(task) * missing if missing else 0.0)
        if first and self._reporter.elapsed_seconds + forecast > self.limit_seconds + SLACK_SECONDS:
            raise JobFailure(
                "timed_out",
                f"expected to finish within {self.limit_seconds:.0f} s; the cheapest step, {step}, would take about "
                f"{forecast:.0f} s for {missing} images; raise max_minutes, or send less data",
            )
        if not first and not self._fits(forecast, after=forecast_scratch(self.seconds + forecast)):
            self._skip(step, forecast)
            return None
        began = monotonic()
        candidate = linear_probe.run(LinearProbe(), task)
        self._tried(step, candidate, monotonic() - began, forecast)
        return candidate

    def _asked_to_stop(self, step: str) -> bool:
        if self._reporter.stop_requested:
            self._decide(step, "skipped", "the job was asked to stop")
        return self._reporter.stop_requested

    def _fine_tune(self, probe: Candidate) -> Candidate | None:
        task = replace(self._task, backbone=probe.backbone)
        counts = np.bincount(task.labels_N[task.pool], minlength=task.num_classes)
        median = float(np.median(counts))
        step = f"fine_tune last_stage of {probe.backbone.name}"
        if median < MIN_MEDIAN_IMAGES and len(task.pool) < MIN_IMAGES:
            found = f"{median:.0f} images in the median class and {len(task.pool)} in all"
            self._decide(step, "skipped", f"needs {MIN_MEDIAN_IMAGES} or {MIN_IMAGES}; found {found}")
            return None
        if self._asked_to_stop(step):
            return None
        per_image = seconds_per_image(task)
        training = per_image * len(task.pool) * EPOCHS * TRAIN_SHARE
        forecast = TORCH_SECONDS + EXPORT_SECONDS + per_image * len(task.pool) * VIEWS + training
        # The baseline from scratch must get the same time afterwards, twice: two networks.
        finish = forecast_scratch(max(self.seconds, wall_seconds(task, probe)) + forecast)
        if not self._fits(forecast, after=finish):
            self._skip(step, forecast)
            return None
        from worker.methods import fine_tune

        began = monotonic()
        left = self.limit_seconds - self._reporter.elapsed_seconds - finish
        recipe = FineTune(scope="last_stage", epochs=EPOCHS, max_minutes=left / 60)
        tuned = fine_tune.run(recipe, task)
        self._tried(step, tuned, monotonic() - began, forecast)
        return replace(tuned, seconds=tuned.seconds + probe.seconds)

    def _scores(self, candidate: Candidate, rows: Rows) -> NDArray[np.float64]:
        """Right or wrong per item; for macro F1 weighted so that each class counts the same, its item-wise stand-in."""
        place = np.searchsorted(candidate.selection.rows, rows)
        labels = self._task.labels_N[rows]
        right = (candidate.selection.logits[place].argmax(1) == labels).astype(np.float64)
        if self._recipe.objective == "accuracy":
            return np.asarray(right)
        counts = np.bincount(labels, minlength=self._task.num_classes)
        return np.asarray(right * len(rows) / (np.count_nonzero(counts) * counts[labels]))

    def _fits(self, forecast: float, after: float) -> bool:
        return self._reporter.elapsed_seconds + forecast + after <= self.limit_seconds

    def _skip(self, step: str, forecast: float) -> None:
        left = self.limit_seconds - self._reporter.elapsed_seconds
        reason = f"its forecast of {forecast:.0f} s, and what must follow it, do not fit the {left:.0f} s that are left"
        self._decide(step, "skipped", reason, forecast_seconds=round(forecast, 1))

    def _tried(self, step: str, candidate: Candidate, seconds: float, forecast: float) -> None:
        rows, task = candidate.selection.rows, self._task
        right = candidate.selection.logits.argmax(1) == task.labels_N[rows]
        error = float(right.std(ddof=1) / np.sqrt(len(rows)))
        score = float(right.mean())
        self._decide(
            step,
            "tried",
            f"{candidate.name}: {score:.3f} +- {error:.3f} {candidate.selection.what} in {seconds:.1f} s",
            score=score,
            low=score - Z95 * error,
            high=score + Z95 * error,
            seconds=round(seconds, 2),
            forecast_seconds=round(forecast, 2),
        )

    def _decide(self, step: str, outcome: str, reason: str, **numbers: float) -> None:
        decision = Decision(step=step, outcome=outcome, reason=reason, **numbers)
        self.decisions.append(decision)
        data: dict[str, Any] = asdict(decision)
        self._reporter.log(f"{step}: {outcome}, {reason}", **data)
