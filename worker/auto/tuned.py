"""The last part of `auto`: trainings of the chosen backbone. Torch is imported only where one starts."""

from dataclasses import replace
from time import monotonic

from app.errors import JobFailure
from app.recipes import FineTune
from worker.auto import steps
from worker.auto.bench import Bench
from worker.auto.budget import EXPORT_SECONDS
from worker.auto.choice import Entry
from worker.auto.frozen import cost
from worker.auto.steps import Step
from worker.backbones import features
from worker.contract.candidate import Candidate
from worker.contract.task import Task
from worker.methods.reference import holdout

# Of the time that a training may take: one that ends a little late must not cost the networks from scratch theirs.
TRAINING_SHARE = 0.9
# To compare on: one item has no spread.
MIN_HELD = 2


def trained(bench: Bench, frozen: Candidate) -> list[Entry]:
    """Every training of the frozen candidate's backbone that its images and the time allow, cheapest first."""
    task = bench.on(frozen.backbone)
    found = []
    for step in steps.TUNED:
        name = f"{step.name} of {task.backbone.name}"
        refusal = step.refusal(bench.facts)
        if not refusal and len(holdout(task)) < MIN_HELD:
            refusal = "needs classes of at least 3 images outside the test split, to hold some out; found none"
        if refusal:
            bench.decide(name, "skipped", refusal)
            continue
        candidate = _train(bench, task, step, name, frozen)
        if candidate is not None:
            found.append(Entry(name, step.tier * cost(task.backbone), candidate))
    return found


def _train(bench: Bench, task: Task, step: Step, name: str, frozen: Candidate) -> Candidate | None:
    budget = bench.budget
    forecast = budget.tuning(step, bench.facts, task.backbone)
    cached = frozen.extraction.num_cached if frozen.extraction else 0
    room = budget.room(task.backbone, cached, trained=True)
    if not bench.may_start(name, forecast, room):
        return None
    from worker.methods import fine_tune

    assert isinstance(step.recipe, FineTune)
    seconds = max(1.0, TRAINING_SHARE * room.most - EXPORT_SECONDS)
    recipe = step.recipe.model_copy(update={"max_minutes": seconds / 60})
    began = monotonic()
    try:
        with budget.guarded():
            candidate = fine_tune.run(recipe, task)
    except features.Left as left_off:
        stopped = task.context.reporter.stop_requested
        why = "the job was asked to stop" if stopped else "the time is over"
        bench.decide(name, "skipped", f"{why}; {left_off}", forecast_seconds=round(forecast, 1))
        return None
    except JobFailure as failure:
        # There is something to serve: what this training cannot do must not take it away.
        seconds = round(monotonic() - began, 2)
        reason = f"{failure.code}: {failure.message}"
        bench.decide(name, "failed", reason, seconds=seconds, forecast_seconds=round(forecast, 2))
        return None
    seconds = monotonic() - began
    budget.learn("tuning", seconds, forecast)
    bench.tried(name, candidate, seconds, forecast)
    return replace(candidate, seconds=candidate.seconds + frozen.seconds)
