"""The first part of `auto`: heads on the frozen features of every backbone that there is time for. Torch-free."""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

from app.errors import JobFailure
from app.recipes import FewShot, LinearProbe
from worker.backbones import features
from worker.backbones.features import Extraction
from worker.backbones.prepared import Prepared
from worker.contract.outcome import Candidate
from worker.contract.task import Task
from worker.methods import few_shot, linear_probe
from worker.methods.auto_bench import Bench
from worker.methods.auto_budget import Room
from worker.methods.auto_choice import Entry
from worker.methods.auto_steps import Step, num_draws
from worker.methods.reference import SLACK_SECONDS, starts


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
        JobFailure: timed_out, not even the first head fits.
    """
    found: list[Entry] = []
    for backbone in sorted(bench.task.backbones, key=cost):
        task, first = bench.on(backbone), not found
        extraction = _features(bench, task, steps[0], first)
        if extraction is None:
            continue
        for step in steps:
            name = f"{step.name} on {backbone.name}{of}"
            candidate = _head(bench, task, step, name, extraction, is_needed=not found)
            if candidate is not None:
                found.append(Entry(name, step.tier * cost(backbone), candidate))
    return found


def _features(bench: Bench, task: Task, step: Step, first: bool) -> Extraction | None:
    """Extracts what is missing; None where there is no time for it, or none any more."""
    name, budget = f"features of {task.backbone.name}", bench.budget
    forecast, missing = budget.extraction(task)
    head = budget.head(step, bench.facts, task.backbone)
    if first:
        scoring = budget.scoring(task.backbone, trained=False)
        _check_first(bench, f"{step.name} on {task.backbone.name}", forecast + head + scoring, missing)
        starts(task.context.reporter, name, forecast)
    else:
        room = budget.room(task.backbone, len(task.pool) - missing, trained=False)
        if not bench.may_start(name, forecast + head, room):
            return None
    try:
        with budget.guarded(is_needed=first):
            _, extraction = features.pooled(task.context, task.index, task.pool, task.backbone, ("features", 0.05, 0.7))
    except features.Left as left_off:
        if first:
            raise JobFailure(
                "timed_out",
                f"expected the first features within {budget.limit_seconds:.0f} s and {SLACK_SECONDS:.0f} s more; "
                f"found that {left_off}; raise max_minutes, or run the job again: it goes on from there",
            ) from None
        stopped = task.context.reporter.stop_requested
        why = "the job was asked to stop" if stopped else "the time is over"
        bench.decide(name, "skipped", f"{why}; {left_off}", forecast_seconds=round(forecast, 1))
        return None
    bench.decide(
        name,
        "done",
        f"{extraction.num_cached} cached, {extraction.num_extracted} extracted in {extraction.seconds:.1f} s",
        seconds=round(extraction.seconds, 2),
        forecast_seconds=round(forecast, 2),
    )
    return extraction


def _check_first(bench: Bench, step: str, forecast: float, missing: int) -> None:
    """Says at once what cannot end well.

    Raises:
        JobFailure: timed_out.
    """
    budget = bench.budget
    if forecast > budget.left_seconds + SLACK_SECONDS:
        raise JobFailure(
            "timed_out",
            f"expected to finish within {budget.limit_seconds:.0f} s; the cheapest step, {step}, would take about "
            f"{forecast:.0f} s for {missing} images; raise max_minutes, or send less data",
        )


def _head(
    bench: Bench, task: Task, step: Step, name: str, extraction: Extraction, *, is_needed: bool
) -> Candidate | None:
    budget = bench.budget
    forecast = budget.head(step, bench.facts, task.backbone)
    # The networks from scratch are not waited for here: a head takes seconds, and is worth more than they are.
    scoring = budget.scoring(task.backbone, trained=False)
    room = Room(budget.left_seconds, scoring, scoring, is_followed=False)
    if is_needed:
        starts(task.context.reporter, name, forecast)
    elif not bench.may_start(name, forecast, room):
        return None
    task.context.reporter.check_yield()
    began, draws = monotonic(), num_draws(len(task.pool))
    if isinstance(step.recipe, FewShot):
        candidate, _ = few_shot.chosen(step.recipe, task, draws)
    else:
        assert isinstance(step.recipe, LinearProbe)
        candidate = linear_probe.run(step.recipe, task, draws)
    seconds = monotonic() - began
    budget.learn(step.name, seconds, forecast)
    candidate = replace(candidate, extraction=extraction, seconds=seconds + extraction.seconds)
    bench.tried(name, candidate, seconds, forecast)
    return candidate
