"""Networks from scratch for which a job's own time did not do, held against what its version keeps of the transfer.

Nothing is carried out again: what the transfer named of selection data lies in `selection.parquet`, what it named of
the scored items in `predictions.parquet`, and the time that it took in its report. It is the same comparison as within
the job, but for what is served: that was settled before. Torch.
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from app.artifact import bundle
from app.artifact import selection as selections
from app.artifact.predicted import Predictions
from app.artifact.selection import TRANSFER, SelectionPredictions
from worker import transfer
from worker.attempt.context import RunContext
from worker.contract.candidate import Selection
from worker.contract.outcome import Decision, Scratch
from worker.contract.task import Task
from worker.data.samples import Index
from worker.evaluate import flags, sections
from worker.evaluate.judged import one_hot
from worker.evaluate.sections import Scored, score
from worker.forecasting import curve
from worker.methods import reference
from worker.reports import on_selection, reasons
from worker.reports.report import COMPARED
from worker.scores.intervals import clopper_pearson
from worker.studies import scored_items
from worker.studies.scored_items import ScoredItems
from worker.studies.served_version import ServedVersion

SETTLED = (
    "the transfer itself is served: the network from scratch, which is better, was trained after its publication; run "
    "it again with more time (max_minutes), and it falls back"
)
MORE_IMAGES = "forecast.more_images"
# What is null until there are networks from scratch.
WAITING = (*COMPARED, "gain", MORE_IMAGES)
Part = dict[str, Any]


def part(context: RunContext, version: ServedVersion, known: Predictions, report: dict[str, Any]) -> Part:
    """Trains the networks, and words the verdict over them.

    Args:
        context: of the job that fills in.
        version: whose report it is.
        known: what it said of its scored items.
        report: as it was published.
    """
    index = transfer.load(context, context.document.dataset)
    task = _task(context, version, index)
    items = scored_items.scored(known, index, version.spec.labels)
    path = context.storage.fetch(f"{version.prefix}/{bundle.SELECTION}")
    ours = _selection(selections.read(path), index, task)
    small = _train(task, ours, report["cost"])
    if isinstance(small, Decision):
        return without(report, small.reason) | {"decisions": [asdict(small)]}
    # As within the job, the test split is looked at once the verdict stands.
    evidence = None if small.unfair else on_selection.verdict(task, ours, small.selection)
    scored = score(small.predict(items.rows), items.labels_T)
    filled = _filled(task, report, small, evidence, scored, items)
    hurried = None if small.unfair else small.hurried
    return {
        "filled": filled,
        "not_computed": _unsaid(report, filled, small, evidence),
        "flags": flags.some_of(flags.negative({"vs_scratch": evidence}), flags.of_time({}, hurried)),
        "decisions": [asdict(one) for one in (_decision(task, small), *small.skipped)],
    }


def _decision(task: Task, small: Scratch) -> Decision:
    """That it was trained after all, beside the row that says why it was not in the job itself."""
    right_P = small.selection.logits.argmax(1) == task.labels_N[small.selection.rows]
    low, high = clopper_pearson(int(right_P.sum()), len(right_P))
    reason = f"by this report's follow-up, since the job itself had no time for it: {small.what}; each had "
    reason += str(small.details["budget"])
    score, took = float(right_P.mean()), round(small.seconds, 2)
    return Decision("baseline from scratch", "tried", reason, score=score, low=low, high=high, seconds=took)


def _task(context: RunContext, version: ServedVersion, index: Index) -> Task:
    """As the transfer had it, on the backbone that it chose."""
    task = transfer.make_task(context, index)
    digest = version.spec.backbone.digest
    return replace(task, backbone=next(one for one in task.backbones if one.digest == digest))


def _selection(said: SelectionPredictions, index: Index, task: Task) -> Selection:
    """What the transfer named, as a selection; a named class is all that a verdict asks for."""
    place, class_of = scored_items.places(index), {name: number for number, name in enumerate(task.class_names)}
    rows = np.array([place[name] for name in said.ids], np.int64)
    named_P = [class_of[name] for name in said.named[TRANSFER] if name is not None]
    return Selection(rows, one_hot(named_P, task.num_classes), said.what, said.optimism)


def _train(task: Task, ours: Selection, cost: dict[str, Any]) -> Scratch | Decision:
    """With the time that the transfer took in its own job, which is over: nobody waits."""
    seconds = cost["transfer_seconds"]
    own_seconds = reference.wall_seconds(task, seconds, sections.extraction(cost))
    return reference.scratch(task, ours.rows, seconds, own_seconds)


def _filled(
    task: Task, report: dict[str, Any], small: Scratch, evidence: Part | None, scored: Scored, items: ScoredItems
) -> Part:
    """Values by their paths in the report."""
    ours = score(one_hot(items.named_T, task.num_classes), items.labels_T)
    filled: Part = {
        "verdict": evidence and evidence["verdict"],
        "verdicts.vs_scratch": evidence and evidence["verdict"],
        "verdict_evidence.vs_scratch": evidence,
        "baselines.scratch": sections.baseline(scored, small.what),
        "baselines_skipped": {},
        "seed_deviation.scratch": on_selection.scratch_deviation(small),
        "details.scratch": small.details,
        "cost.baselines_seconds": round((report["cost"]["baselines_seconds"] or 0.0) + small.seconds, 3),
    }
    if not small.unfair:
        filled["gain"] = sections.gain(ours, scored, "scratch")
    if report["curve"]:
        filled["curve"] = _curve(task, report["curve"], small)
    return filled


def _curve(task: Task, found: dict[str, Any], small: Scratch) -> dict[str, Any]:
    """The same curve, with what the backbone is worth in labels."""
    sizes = [one["num_learned"] for one in found["points"]]
    accuracies = [one["accuracy"] for one in found["points"]]
    worth, untold = curve.multiplier(sizes, accuracies, small, task.labels_N, found["reasons"].get("fit"))
    kept = {name: why for name, why in found["reasons"].items() if name not in curve.MULTIPLIER}
    return {**found, **worth, "reasons": kept | untold}


def _unsaid(report: dict[str, Any], filled: Part, small: Scratch, evidence: Part | None) -> dict[str, str]:
    """Why something is null all the same, and what is said otherwise now."""
    told: dict[str, str] = {}
    if small.unfair:
        told |= dict.fromkeys(("verdict", "verdicts.vs_scratch"), small.unfair)
        told |= {"gain": sections.ITSELF["vs_frozen"]} if "gain" in report["follow_up"]["fills"] else {}
    if filled["seed_deviation.scratch"] is None:
        told["seed_deviation.scratch"] = on_selection.ONE_NETWORK
    if filled.get("gain") and filled["gain"]["relative_error_reduction"] is None:
        told["gain.relative_error_reduction"] = reasons.NO_ERRORS
    if evidence and evidence["verdict"] == "negative" and report["fallback"] is None:
        told["fallback"] = SETTLED
    return told


def without(report: dict[str, Any], reason: str) -> Part:
    """Of a report that has no networks from scratch this time either."""
    waiting = [path for path in report["follow_up"]["fills"] if path in WAITING]
    filled: Part = {"baselines_skipped": {"scratch": reason}}
    if MORE_IMAGES in waiting:
        filled[f"{MORE_IMAGES}_skipped"] = reason
    return {"filled": filled, "not_computed": dict.fromkeys(waiting, reason)}
