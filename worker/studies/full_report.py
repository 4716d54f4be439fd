"""What a full report has beyond a fast one, computed once its version is served (docs/decisions/0039).

The networks from scratch are held against the transfer carried out again, on features that are in the cache: its
predictions must be those that were published. Of `auto` and `fine_tune`, whose own time did not do for them, they are
held against what the version keeps, see `scratch_later`. Everything else is asked of the published files. The scored
items are those of the version's own predictions. Torch for networks from scratch alone.

Shape legend: T scored items, M strange ones, P that were learned from.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from app import recipes
from app.artifact import bundle, predicted
from app.artifact.predicted import Predictions
from app.errors import JobFailure, NotFound
from app.recipes import Auto, FineTune, ZeroShot
from app.report_paths import is_within, value_at
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.gone import version_deleted
from worker.by_recipe import METHODS
from worker.contract.candidate import Candidate
from worker.contract.task import Rows, Task
from worker.data.samples import Index
from worker.evaluate import out_of_distribution, robustness, sameness, sections, served_graph, strangers, supplement
from worker.evaluate.out_of_distribution import OTHERS, Strangers
from worker.evaluate.served_graph import ServedGraph
from worker.overlap import matches
from worker.reports import reasons
from worker.reports.report import COMPARED
from worker.studies import distorted, scored_items, scratch_later, served_version
from worker.studies.finished import Finished
from worker.studies.served_version import ServedVersion

# What depends on the networks from scratch, and is null or another without them.
FROM_SCRATCH = (
    *scratch_later.WAITING, "verdict_evidence.vs_scratch", "baselines_skipped", "forecast.more_images_skipped",
    "details.scratch", "cost.baselines_seconds",
)  # fmt: skip

Part = dict[str, Any]


def run(context: RunContext) -> dict[str, Any]:
    """Computes what the report of a finished transfer waits for.

    Returns:
        `result`: what is to be written where, see `services.reports.fill`; `metrics`, which are none.

    Raises:
        JobFailure: version_deleted, and what the transfer itself raises.
    """
    document, reporter = context.document, context.reporter
    original, side = document.inputs["original"], document.inputs["side"]
    reporter.progress(0.01, "load")
    version = served_version.open_version(context, side)
    known, report = _published(context, version)
    parts, done = Finished(context, "parts"), list[Part]()
    wanted: dict[str, Callable[[], Part]] = {}
    if set(COMPARED) & set(report["follow_up"]["fills"]):
        wanted["comparison"] = lambda: _compared(context, version, known, report)
    wanted["images"] = lambda: _images(context, version, known)
    if distorted.wanted(report):
        wanted["distortion"] = lambda: _distortion(context, version, known)
    for name, compute in wanted.items():
        part = parts.get(name)
        if part is None:
            part = _of_what_stays(context, version, compute)
            parts.add(name, part)
        done.append(part)
        reporter.check_yield()
    result = {
        "mode": document.inputs["mode"],
        "job": original["job"],
        "model": {"name": side["model"], "version": side["version"]},
        "filled": {path: value for part in done for path, value in part["filled"].items()},
        "not_computed": {path: reason for part in done for path, reason in part["not_computed"].items()},
        "flags": [flag for part in done for flag in part.get("flags", [])],
        "decisions": [decision for part in done for decision in part.get("decisions", [])],
        "predictions": next((part["predictions"] for part in done if "predictions" in part), None),
    }
    reporter.log(f"the report of {original['job']} has {', '.join(report['follow_up']['fills'])} now")
    return {"result": result, "metrics": {}}


def _published(context: RunContext, version: ServedVersion) -> tuple[Predictions, dict[str, Any]]:
    """What the version said of its scored items, and the report as it was then."""
    fetch, prefix = context.storage.fetch, version.prefix
    try:
        known = predicted.read(fetch(f"{prefix}/{bundle.PREDICTIONS}"))
        return known, json.loads(fetch(f"{prefix}/{bundle.REPORT}").read_text("utf-8"))
    except NotFound as error:
        raise _deleted(version) from error


def _of_what_stays(context: RunContext, version: ServedVersion, compute: Callable[[], Part]) -> Part:
    """The part; a version that is deleted beneath it takes its files along, and whatever fails then fails of that."""
    try:
        return compute()
    except (NotFound, OSError) as error:
        if context.storage.stat(f"{version.prefix}/{bundle.REPORT}") is None:
            raise _deleted(version) from error
        raise


def _deleted(version: ServedVersion) -> JobFailure:
    return version_deleted(
        {"model": version.model, "version": version.version}, "reported in full", "run the transfer again to have one"
    )


def _compared(context: RunContext, version: ServedVersion, known: Predictions, report: dict[str, Any]) -> Part:
    """The networks from scratch, the learning curve, and what hangs on them."""
    recipe = recipes.parse(context.document.recipe or {})
    if isinstance(recipe, Auto | FineTune):
        return scratch_later.part(context, version, known, report)
    task, judge = transfer.plan(context, recipe, full=True)
    outcome = METHODS[type(recipe)](recipe, task)
    # The networks from scratch are given the time that the transfer took, and not that of the second time.
    seconds, extraction = report["cost"]["transfer_seconds"], sections.extraction(report["cost"])
    candidate = replace(outcome.candidate, seconds=seconds, extraction=extraction)
    same, reason = _is_same(known, task, candidate, version)
    if reason:
        context.reporter.log(f"no comparison with networks from scratch: {reason}", "warning", **same)
        return scratch_later.without(report, reason) | {"predictions": same}
    found = judge(replace(outcome, candidate=candidate))
    filled = {
        path: value_at(found.report, path)
        for path in FROM_SCRATCH
        if value_at(report, path.rpartition(".")[0]) is not None
    }
    skipped = found.report["baselines_skipped"].get("scratch")
    told = found.report["not_computed"] | reasons.standing(found.report)
    unsaid = {path: reason for path, reason in told.items() if is_within(path, filled)}
    if skipped:
        unsaid |= {path: unsaid.get(path) or skipped for path in COMPARED if filled.get(path, path) is None}
    return {
        "filled": filled,
        "not_computed": unsaid,
        "flags": [flag for flag in found.report["flags"] if flag not in report["flags"]],
        "decisions": [one for one in found.report["decisions"] if one["step"].startswith("baseline ")],
        "predictions": same,
    }


def _is_same(
    known: Predictions, task: Task, candidate: Candidate, version: ServedVersion
) -> tuple[dict[str, Any], str]:
    """How near the transfer, carried out again, came to what it has published; and why it cannot stand for it, if so.

    A verdict is decided on selection data and reported on the scored items: both must be named as they were.
    """
    rows = scored_items.scored(known, task.index, version.spec.labels).rows
    said_TC = candidate.head.probabilities(candidate.features(rows))
    same, selected = sameness.compare(known.probabilities, said_TC), candidate.selection
    right = float((selected.logits.argmax(1) == task.labels_N[selected.rows]).mean())
    held = version.spec.metrics["selection_accuracy"]
    if same.share_equal == 1 and held == (None if selected.is_blind else right):
        return asdict(same), ""
    return asdict(same), (
        f"carried out again, the transfer names {same.share_equal:.1%} of the scored images as the published version "
        f"does, and {right} of those held out right instead of {held}: a verdict would be of another model; run the "
        "transfer again on a machine like this one"
    )


def _images(context: RunContext, version: ServedVersion, known: Predictions) -> Part:
    """What runs images through the version again: corrupted ones, and strange ones."""
    context.reporter.progress(0.9, "images")
    index = transfer.load(context, context.document.dataset)
    head = context.storage.fetch(f"{version.prefix}/{bundle.HEAD}")
    served = ServedGraph(version.graph, version.shape, served_graph.open_head(head))
    items = scored_items.scored(known, index, version.spec.labels)
    rows = items.rows
    filled: dict[str, Any] = {"robustness": robustness.robustness(context, index, served, rows, items.labels_T)}
    context.reporter.progress(0.95, "images of no class")
    others = scored_items.others(index, version.spec.labels)
    stage = ("images of no class", 0.95, 0.98)
    num = min(len(rows), len(others)) if len(others) else len(rows)
    if num < out_of_distribution.MIN_ITEMS:
        few = f"needs {out_of_distribution.MIN_ITEMS} images of either kind; found {num}"
        return {"filled": {**filled, "out_of_distribution": None}, "not_computed": {"out_of_distribution": few}}
    if len(others):
        strange = Strangers(version.features(context, index, others, stage), OTHERS, synthetic=False)
    else:
        seed, threads = context.document.seed, context.settings.num_compute_threads
        strange = out_of_distribution.patterns(served, seed, threads)
    learned = _learned(context, version, index)
    learned_PD = None if learned is None else version.features(context, index, learned, stage)
    familiar_TD = version.features(context, index, rows, stage)
    filled["out_of_distribution"] = out_of_distribution.section(served, familiar_TD, strange, learned_PD)
    missing = {"out_of_distribution.auroc.nearest": supplement.NOT_AT_HAND} if learned_PD is None else {}
    return {"filled": filled, "not_computed": missing}


def _distortion(context: RunContext, version: ServedVersion, known: Predictions) -> Part:
    """How far each stage of a trained network moved, and how far on other images."""
    context.reporter.progress(0.98, "stages")
    index = transfer.load(context, context.document.dataset)
    return distorted.part(context, version, index, scored_items.scored(known, index, version.spec.labels).rows)


def _learned(context: RunContext, version: ServedVersion, index: Index) -> Rows | None:
    """A sample of the dataset's items whose labels the version learned from; None where these are not at hand.

    Features of a trained graph are not kept for them, and a zero-shot model has learned from none.
    """
    dataset = context.document.dataset
    if dataset is None or not version.shared or isinstance(recipes.parse(context.document.recipe or {}), ZeroShot):
        return None
    taught = [one for one in version.seen or () if (one.what, one.id, one.backbone) == ("dataset", dataset.id, "")]
    ids = {row.tobytes() for one in taught for row in one.ids}
    own = matches.of_rows(index, np.arange(len(index)), "dataset", dataset.id).ids
    rows = np.array([row for row, name in enumerate(own) if name.tobytes() in ids], np.int64)
    some = np.random.default_rng(context.document.seed).permutation(len(rows))[: strangers.MAX_LEARNED]
    return rows[np.sort(some)] if len(rows) else None
