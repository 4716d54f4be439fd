"""`auto`: tries what fits the data and the time, cheapest first, and serves the best. Every decision is written down.

Told in order in `run`; docs/auto.md has the evidence. The parts: `steps` (the table of what is tried when), `budget`
(forecasts), `bench` (what all parts share), `frozen` (heads on cached features), `domains` (a source, or images without
labels), `tuned` (trainings), `choice` (paired scores, one standard error, predictions free of the choice).
"""

from dataclasses import replace

from app.recipes import Auto
from worker.auto import domains, frozen, steps
from worker.auto.bench import opened
from worker.auto.choice import Entry
from worker.auto.tuned import trained
from worker.contract.candidate import BLIND
from worker.contract.outcome import Outcome
from worker.contract.task import Task
from worker.methods.reference import FALLBACK_OFF


def run(recipe: Auto, task: Task) -> Outcome:
    """Chooses backbone and method by selection data, inside the budget.

    Raises:
        JobFailure: timed_out, not even the cheapest step on the fewest images fits the time.
        Yielded: the worker shuts down.
    """
    if task.source is not None and not domains.is_labelled(task):
        return domains.adapted(recipe, task)
    bench = opened(recipe, task)
    # 1. Heads on the frozen features of each backbone: seconds, and one of them is what all else is compared with.
    tried = frozen.heads(bench, steps.heads(bench.facts))
    best = bench.choose(tried)
    backbone = best.candidate.backbone
    # 2. What a source, or more images without labels, can add on the same features.
    others, adaptation = domains.joined(bench, best.candidate)
    apart = domains.unlabelled(bench, best.candidate)
    if others:
        best = bench.choose([best, *others])
    # 3. Trainings of the network, where there are images and time for them.
    tuned = trained(bench, best.candidate)
    if tuned:
        best = bench.choose([best, *tuned])
    # 4. One is served. The whole search is what this transfer took; a baseline from scratch gets the same.
    served = replace(
        best.candidate,
        seconds=max(best.candidate.seconds, bench.budget.seconds),
        details=best.candidate.details | (bench.part.details if bench.part else {}),
    )
    bench.keep()
    bench.decide("served", "served", _why(best, len(tried) + len(others) + len(tuned)))
    probe_step = f"linear_probe on {backbone.name}"
    probe = next((one.candidate for one in tried if one.step == probe_step), None)
    return Outcome(
        candidate=served,
        decisions=tuple(bench.decisions),
        frozen=served if best.step == probe_step else probe,
        compared_by_seconds=bench.budget.compared_by_seconds(backbone, trained=not served.shared),
        image_seconds=bench.budget.clock.known_pace(backbone),
        adaptation=adaptation,
        unjoined=bench.skipped(domains.JOINT),
        apart=apart,
        excerpt=bench.part,
        stays=_stays(recipe),
    )


def _stays(recipe: Auto) -> str | None:
    """Why what was chosen is served, whatever the verdicts say; None where a baseline may be."""
    if not recipe.fallback:
        return FALLBACK_OFF
    return None if recipe.objective == "accuracy" else "verdicts are of accuracy, and the recipe maximises macro F1"


def _why(best: Entry, num_tried: int) -> str:
    if num_tried == 1:
        return f"{best.step}: nothing else was tried"
    if best.candidate.selection.is_blind:
        return f"{best.step}: the cheapest of {num_tried} tried, none of which has a score; {BLIND}"
    return f"{best.step}: the cheapest that is not worse than the best by one standard error, of {num_tried} tried"
