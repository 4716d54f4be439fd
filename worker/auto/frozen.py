"""The first part of `auto`: heads on the frozen features of every backbone that there is time for. Torch-free."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from time import monotonic

import numpy as np

from app.errors import JobFailure
from app.recipes import FewShot, LinearProbe
from worker.attempt.progress import SLACK_SECONDS
from worker.auto.bench import Bench
from worker.auto.budget import Room
from worker.auto.choice import Entry
from worker.auto.steps import Step, num_draws
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.features import Extractor
from worker.backbones.prepared import Prepared
from worker.contract.candidate import Candidate
from worker.contract.excerpt import LEAST_CLASS_IMAGES, LEAST_SCORED
from worker.contract.task import Rows, Task
from worker.methods import few_shot, gathering, linear_probe
from worker.methods.clock import Clock
from worker.methods.gathering import Wanted
from worker.methods.reference import starts


def cost(backbone: Prepared) -> float:
    """What an image costs, relative to other backbones: input pixels times parameters.

    Not a stop watch: the same data and seed must choose the same backbone on a busy machine.
    """
    return backbone.preprocess.height * backbone.preprocess.width * backbone.num_params / 1e12


def heads(bench: Bench, steps: Sequence[Step], of: str = "") -> list[Entry]:
    """Every head on every backbone that fits the time, the cheapest backbone first.

    Args:
        bench: the search.
        steps: the heads, in order.
        of: what their names end with, where the data is not the job's own.

    Raises:
        JobFailure: timed_out, not even the first head on the fewest images fits.
    """
    found: list[Entry] = []
    for backbone in sorted(bench.task.backbones, key=cost):
        step = f"features of {backbone.name}{of}"
        extraction = _other(bench, backbone, steps[0], step) if found else _first(bench, backbone, step)
        if extraction is None:
            continue
        for one in steps:
            name = f"{one.name} on {backbone.name}{of}"
            candidate = _head(bench, bench.on(backbone), one, name, extraction, is_needed=not found)
            if candidate is not None:
                found.append(Entry(name, one.tier * cost(backbone), candidate))
    return found


def _first(bench: Bench, backbone: Prepared, name: str) -> Extraction:
    """Features without which nothing can be served: of as many images as the time holds, the test split's with them.

    Raises:
        JobFailure: timed_out, the time does not hold the fewest.
    """
    task, clock = bench.on(backbone), bench.budget.clock
    index, scored = bench.budget.scored
    # Of a source none are scored: those of the dataset itself must have their time, too.
    own = scored if index is task.index else scored[:0]
    opened = cache(lambda: features.open_extractor(task.context, backbone))

    def extract(rows: Rows) -> Extraction:
        return features.pooled(task.context, task.index, rows, backbone, ("features", 0.05, 0.7), opened)[1]

    def num_missing(rows: Rows) -> int:
        return features.num_missing(task.context, task.index, rows, backbone)

    def kept_seconds(pace: float) -> float:
        """The dataset's share of the time, where it is another one, and no more than it needs."""
        if index is task.index:
            return 0.0
        needed = features.num_missing(task.context, index, scored, backbone) * pace
        return min(needed, max(0.0, clock.left_seconds) * len(scored) / (len(scored) + len(task.pool)))

    order = gathering.order(task, own)
    first = order.rows[: order.num_least]
    forecast = _check_first(bench, task, first, num_missing(first), opened)
    further = num_missing(order.rows[order.num_least :])
    forecast = of_rounds(clock, forecast, further, lambda: clock.pace(task, run=opened))
    starts(task.context.reporter, name, forecast)
    wanted = Wanted(backbone, extract, num_missing, own, kept_seconds=kept_seconds)
    try:
        found = gathering.gather(clock, task, wanted, first_by=clock.limit_seconds + SLACK_SECONDS, hears_stop=True)
    except features.Left as left_off:
        raise JobFailure(
            "timed_out",
            f"expected the features of {len(first)} images, the fewest to learn from and to score, within "
            f"{clock.limit_seconds:.0f} s and {SLACK_SECONDS:.0f} s more; found that {left_off}; raise max_minutes, or "
            "run the job again: it goes on from there",
        ) from None
    if found.part is not None:
        bench.narrow(found.part)
    done(bench, name, found.extraction, forecast)
    # What a transfer takes is that of what it learns from; which of the images those were, cached or not, is not kept.
    num_learned = len(bench.task.pool)
    share = num_learned / max(1, found.num_rows)
    num_cached = min(num_learned, round(share * found.extraction.num_cached))
    return Extraction(num_cached, num_learned - num_cached, share * found.extraction.seconds)


def of_rounds(clock: Clock, first: float, num_further: int, pace: Callable[[], float]) -> float:
    """Forecast of all rounds in which features are gathered; what the time does not hold is not begun.

    Args:
        clock: of the job.
        first: seconds that the fewest images take.
        num_further: images that are missing beside them.
        pace: seconds of an image; not asked where none is missing.
    """
    return max(first, min(first + num_further * pace(), clock.left_seconds)) if num_further else first


def _check_first(bench: Bench, task: Task, first: Rows, missing: int, opened: Callable[[], Extractor]) -> float:
    """Forecast of the first features; says at once what cannot end well.

    Raises:
        JobFailure: timed_out.
    """
    clock = bench.budget.clock
    extraction = missing * clock.pace(task, run=opened, rows=first) if missing else 0.0
    needed = clock.elapsed_seconds + extraction + clock.finish_seconds
    if task.recorded is None and needed > clock.limit_seconds + SLACK_SECONDS:
        raise JobFailure(
            "timed_out",
            f"expected to finish within {clock.limit_seconds:.0f} s and {SLACK_SECONDS:.0f} s more; found "
            f"{clock.elapsed_seconds:.0f} s over, {extraction:.0f} s needed for the features of {missing} images on "
            f"{task.backbone.name} ({LEAST_CLASS_IMAGES} of each class to learn from, {LEAST_SCORED} to score), and "
            f"{clock.finish_seconds:.0f} s for the rest; set max_minutes to "
            f"{np.ceil((needed - SLACK_SECONDS) / 0.6) / 100:g} or more",
        )
    return extraction


def _other(bench: Bench, backbone: Prepared, step: Step, name: str) -> Extraction | None:
    """Features of another backbone; None where there is no time for them, or none any more."""
    task, budget = bench.on(backbone), bench.budget
    left, following = budget.clock.left_seconds, budget.clock.finish_seconds
    if left < following:
        # Not even a forecast: what an image takes is timed on some, and a backbone is opened for it.
        reason = f"the time is over; {max(0.0, left):.1f} s are left, and {following:.1f} s must follow"
        bench.decide(name, "skipped", reason)
        return None
    forecast, missing = budget.extraction(task)
    head = budget.head(step, bench.facts, backbone)
    room = budget.room(backbone, len(task.pool) - missing, trained=False)
    if not bench.may_start(name, forecast, room, beside=head):
        return None
    try:
        with budget.guarded():
            _, extraction = features.pooled(task.context, task.index, task.pool, backbone, ("features", 0.05, 0.7))
    except features.Left as left_off:
        stopped = task.context.reporter.stop_requested
        why = "the job was asked to stop" if stopped else "the time is over"
        bench.decide(name, "skipped", f"{why}; {left_off}", forecast_seconds=round(forecast, 1))
        return None
    budget.clock.learn_pace(backbone, extraction)
    extraction = budget.clock.counted(backbone, extraction)
    done(bench, name, extraction, forecast)
    return extraction


def done(bench: Bench, name: str, extraction: Extraction, forecast: float) -> None:
    """Writes down what some features took."""
    bench.decide(
        name,
        "done",
        f"{extraction.num_cached} cached, {extraction.num_extracted} extracted in {extraction.seconds:.1f} s",
        seconds=round(extraction.seconds, 2),
        forecast_seconds=round(forecast, 2),
    )


def _head(
    bench: Bench, task: Task, step: Step, name: str, extraction: Extraction, *, is_needed: bool
) -> Candidate | None:
    budget = bench.budget
    forecast = budget.head(step, bench.facts, task.backbone)
    # The networks from scratch are not waited for here: a head takes seconds, and is worth more than they are.
    scoring = budget.scoring(task.backbone, trained=False)
    room = Room(budget.clock.left_seconds, scoring, scoring, is_followed=False)
    if is_needed:
        starts(task.context.reporter, name, forecast)
    elif not bench.may_start(name, forecast, room):
        return None
    task.context.reporter.check_yield()
    began, draws = monotonic(), num_draws(len(task.pool))
    if isinstance(step.recipe, FewShot):
        candidate, _ = few_shot.chosen(step.recipe, task, draws, bench.recipe.objective)
    else:
        assert isinstance(step.recipe, LinearProbe)
        candidate = linear_probe.run(step.recipe, task, draws, bench.recipe.objective)
    seconds = monotonic() - began
    budget.learn(step.name, seconds, forecast)
    candidate = replace(candidate, extraction=extraction, seconds=seconds + extraction.seconds)
    bench.tried(name, candidate, seconds, forecast)
    return candidate
