"""Tells what a transfer will give as soon as its frozen features are there, and afterwards how far that was off.

One forecast for each backbone of a job, on the features that the method has loaded anyway. The test split has given it
nothing but its size. Where the job keeps to a time, so does its forecast: one that does not fit is left out, and what
more images of a class would buy is left in the middle.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from worker.attempt import machine
from worker.contract.candidate import Candidate
from worker.contract.outcome import Decision
from worker.contract.task import Float, Task
from worker.evaluate.flags import MORE_TIME
from worker.forecasting import forecast as forecasts
from worker.forecasting.forecast import Forecast, forecast
from worker.forecasting.labels_needed import FORETOLD

NOT_ASKED = 'not computed for this recipe; ask for "report": "full"'
NOTHING = "nothing was foretold on this backbone: that needs test images, and others that belong to two groups at least"
STEP = "forecast"
METRICS = ("metrics.forecast_accuracy", "metrics.forecast_low", "metrics.forecast_high")
ROUNDING = 1e-9


class Foresight:
    """The forecasts of one job; it is given to methods as `Task.foresee`.

    Args:
        num_test: size of the test split.
        advise: whether each class is asked what more images of it would buy.
        unit: the method's classifiers stand on features of length 1.
    """

    def __init__(self, num_test: int, *, advise: bool, unit: bool) -> None:
        self._num_test, self._advise, self._unit = num_test, advise, unit
        self._made: dict[str, Forecast] = {}
        self._left_out: dict[str, Decision] = {}

    def __call__(
        self,
        task: Task,
        feats_PD: Float,
        num_learned: int | None = None,
        num_test: int | None = None,
        left: Callable[[], float] | None = None,
    ) -> None:
        """See `task.Foresee`. A backbone is foretold once, or left out: later calls are those of baselines."""
        groups_P, digest = task.groups_N[task.pool], task.backbone.digest
        num_test = self._num_test if num_test is None else num_test
        is_known = digest in self._made or digest in self._left_out
        if is_known or num_test < 1 or len(np.unique(groups_P)) < 2:
            return
        if left is not None and (decision := _too_long(task, left())):
            self._left_out[digest] = decision
            task.context.reporter.log(f"{decision.step}: skipped, {decision.reason}", "warning", **asdict(decision))
            return
        made = forecast(
            feats_PD,
            task.labels_N[task.pool],
            groups_P,
            task.num_classes,
            task.seed,
            num_test,
            num_learned=num_learned,
            unit=self._unit,
            advise=self._advise,
            is_over=None if left is None else lambda: left() <= 0,
        )
        self._made[digest] = made
        _announce(task, made)

    def of(self, candidate: Candidate) -> Forecast | Decision | None:
        """What was foretold on the candidate's backbone, or why it was left out; None where nothing can be told."""
        digest = candidate.backbone.digest
        return self._made.get(digest) or self._left_out.get(digest)


def _too_long(task: Task, left_seconds: float) -> Decision | None:
    """Why there is no time for a forecast."""
    needed = machine.slowness() * forecasts.seconds(len(task.pool), task.num_classes)
    if needed <= left_seconds:
        return None
    reason = f"it would take {needed:.1f} s, which does not fit the {max(0.0, left_seconds):.1f} s that it may take"
    return Decision(STEP, "skipped", reason, forecast_seconds=round(needed, 2))


def flat(made: Forecast | Decision | None) -> dict[str, float | int | None]:
    """Metrics of the job."""
    expected = made.expected if isinstance(made, Forecast) else None
    return {
        "forecast_accuracy": expected.value if expected else None,
        "forecast_low": expected.low if expected else None,
        "forecast_high": expected.high if expected else None,
    }


def sections(
    made: Forecast | Decision | None,
    found: float,
    candidate: Candidate,
    class_names: tuple[str, ...],
    later: str = "",
) -> dict[str, Any]:
    """`forecast` of the report; null, with the reason in `forecast_skipped`, where nothing could be foretold.

    Args:
        made: what was foretold, or why it was left out.
        found: accuracy on the test split.
        candidate: that is served.
        class_names: of the model.
        later: why what more images of a class would buy is not told yet; empty where it never will be.
    """
    if not isinstance(made, Forecast):
        return missing(why_missing(made))
    if made.expected is None:
        return missing(made.untold or "")
    what = (
        f"ridge regression on frozen features of {candidate.backbone.name}, {made.num_images} images to learn from; "
        f"95 % prediction interval of the accuracy on {made.num_test} test images"
    )
    if not candidate.shared:
        what += "; training the network may lead beyond it"
    expected = made.expected
    return {
        "forecast": {
            "expected": expected.value,
            "low": expected.low,
            "high": expected.high,
            "what": what,
            "found": found,
            "error": found - expected.value,
            "inside": expected.low - ROUNDING <= found <= expected.high + ROUNDING,
            "method": candidate.method,
            "num_images": made.num_images,
            "num_test": made.num_test,
            "curve": made.points(),
            "fit": made.fit,
            "fit_skipped": made.reason,
            "extrapolation": made.extrapolations(),
            "labels_needed": made.needs(),
            "labels_needed_skipped": made.reason,
            "more_images": made.advice(class_names),
            "more_images_skipped": (later or NOT_ASKED) if made.more_images is None else None,
        },
        "forecast_skipped": None,
    }


def why_missing(made: Decision | None) -> str:
    """Why there is no forecast."""
    return NOTHING if made is None else f"forecast: {made.reason}; {MORE_TIME}"


def untold(made: Forecast | Decision | None, left_out: Decision | None, *, has_curve: bool) -> dict[str, str]:
    """Of `not_computed`: what stands on a forecast that is not there, or on a curve that it does not have.

    Args:
        made: the forecast.
        left_out: why there is none; None where nothing could be foretold.
        has_curve: whether the report was asked for its curve.
    """
    if isinstance(made, Forecast):
        return {"curve": made.untold} if has_curve and made.untold and not made.curve else {}
    keys = (*(("curve",) if has_curve else ()), *(("forecast",) if left_out else ()))
    return dict.fromkeys(keys, why_missing(left_out))


def placed(decisions: Sequence[Decision], made: Forecast | Decision | None) -> list[Decision]:
    """Decisions in the order of time, one that left the forecast out with them: it fell before anything was tried."""
    if not isinstance(made, Decision):
        return list(decisions)
    place = next((number for number, one in enumerate(decisions) if one.outcome == "tried"), len(decisions))
    return [*decisions[:place], made, *decisions[place:]]


def missing(reason: str) -> dict[str, Any]:
    """Of a report without a forecast."""
    return {"forecast": None, "forecast_skipped": reason}


def _announce(task: Task, made: Forecast) -> None:
    reporter, expected = task.context.reporter, made.expected
    if expected is None:
        reporter.log(f"forecast: none, {made.untold}")
        return
    # A log, not a metric: what is measured begins with training, and whoever waits for the first metric waits for that.
    reporter.log(
        f"forecast: test accuracy {expected.value:.2f} ({expected.low:.2f} to {expected.high:.2f}) expected",
        **flat(made),
        backbone=task.backbone.name,
    )
    for one in made.extrapolation:
        if one.times == 2:
            reporter.log(
                f"forecast: twice the images would give {one.gain:+.3f} ({one.gain_low:+.3f} to {one.gain_high:+.3f})"
            )
    further = [one for one in made.needed or () if one.outcome == FORETOLD]
    for needed in further[:1]:
        reporter.log(f"forecast: accuracy {needed.sentence}")
    for more in (made.more_images or ())[:1]:
        if more.gain_points is not None and more.low is not None and more.low > 0:
            reporter.log(
                f"forecast: {more.images} more images of {task.class_names[more.label]} would buy "
                f"{more.gain_points:+.1f} ({more.low:+.1f} to {more.high:+.1f}) points of balanced accuracy"
            )
