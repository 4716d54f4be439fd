"""What every report has beside its scores: the worst class, who is surest, how features lie, what is known of them.

Nothing here chooses. Where a figure would not be honest it is None, and `not_computed` says why, by the key's path.

Shape legend: T scored items, P of the pool, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.spec import FROM_SCRATCH
from worker.contract.candidate import Candidate, Selection
from worker.contract.task import Float, Rows, Task
from worker.evaluate import distortion, feature_map, flags, groups
from worker.evaluate.feature_map import Group
from worker.evaluate.sections import MIN_ECE_ITEMS, Scored
from worker.overlap import exposed
from worker.scores.metrics import ClassScores
from worker.scores.risk_coverage import MIN_ITEMS, risk_coverage
from worker.scores.worst_class import worst_class

Reasons = dict[str, str]

ASK = 'it runs images through the model again; ask for "report": "full"'
# Of a full report, until its follow-up job has it; the row of the report says which job that is.
LATER = "not computed yet when the version was published: a follow-up job fills it in, GET /api/v1/jobs/{job}/report"
UNCHANGED = "the backbone is served unchanged"
NO_START = "what is served learned from this dataset alone: it began at no pretrained weights"
NOT_AT_HAND = "features of what was learned from, under what is served, are not at hand"
# Roles of datasets beside the job's own whose images were in no split of it.
OTHER_IMAGES = ("unlabelled", "source")
NO_OTHERS = "the job had no other images: neither unlabelled ones nor a source's"
NO_LABELS = "no item with a label was scored"


@dataclass(frozen=True)
class Items:
    """The scored items under the candidate.

    Args:
        rows: of the dataset.
        labels_T: their classes.
        scored: what was said of them.
        feats_TD: as the head takes them.
        frozen_TD: under the unchanged backbone, where the served one is not; else None.
        learned_PD: of what was learned from; None where these are not at hand.
        unmoved: why there is nothing to compare features with, where there is nothing.
    """

    rows: Rows
    labels_T: NDArray[np.int64]
    scored: Scored
    feats_TD: Float
    frozen_TD: Float | None = None
    learned_PD: Float | None = None
    unmoved: str = UNCHANGED


def later(task: Task) -> str:
    """Why a part of a full report is not there yet; empty where no full report was asked for."""
    document = task.context.document
    return LATER.format(job=document.id) if document.report_mode == "full" else ""


def of_items(task: Task, items: Items, per_class: list[ClassScores]) -> tuple[dict[str, Any], Reasons]:
    """Parts that any labelled items allow; what runs images through the model again follows in a full report.

    Args:
        task: the data.
        items: at least one.
        per_class: scores of the classes.
    """
    worst = worst_class(per_class)
    names = [task.class_names[label] for label in items.labels_T]
    paths = task.index.paths.take(items.rows).to_pylist()
    document: dict[str, Any] = {
        "worst_class": worst and asdict(worst),
        "worst_group": groups.worst_group(paths, names, items.scored.correct_T),
        "robustness": None,
        "out_of_distribution": None,
    }
    reasons: Reasons = dict.fromkeys(("robustness", "out_of_distribution"), later(task) or ASK)
    reasons["worst_group"] = "" if document["worst_group"] else groups.NO_GROUPS
    document["feature_distortion"], reasons["feature_distortion"] = _distortion(items)
    if document["feature_distortion"]:
        has_others = any(role in task.context.document.datasets for role in OTHER_IMAGES)
        reasons["feature_distortion.stages"] = later(task) or ASK
        reasons["feature_distortion.other_images"] = (later(task) or ASK) if has_others else NO_OTHERS
    return document, _given(reasons)


def follow_up(task: Task, report: Mapping[str, Any]) -> dict[str, Any]:
    """`follow_up` of a full report that is not whole yet: what waits for a job, which has no name yet."""
    reason = later(task)
    waiting = [path for path, told in report["not_computed"].items() if told == reason]
    return {"follow_up": {"job": None, "state": None, "fills": waiting}} if waiting else {}


def confidence(scored: Scored) -> tuple[dict[str, Any] | None, Reasons]:
    """Risk and coverage of the scored items, and why calibration errors may be missing."""
    num, reasons = len(scored.correct_T), {}
    if num < MIN_ECE_ITEMS:
        few = f"needs {MIN_ECE_ITEMS} scored items; found {num}"
        reasons = dict.fromkeys(("metrics.ece", "calibration.ece", "calibration.adaptive_ece"), few)
    if num < MIN_ITEMS:
        return None, reasons | {"calibration.risk_coverage": f"needs {MIN_ITEMS} scored items; found {num}"}
    return asdict(risk_coverage(scored.probabilities_TC.max(1), scored.correct_T)), reasons


def splits_map(task: Task, items: Items, what: str) -> tuple[dict[str, Any] | None, Reasons]:
    """The feature map of what was learned from and of the test split; of this alone under a trained network."""
    shown = feature_map.part(len(items.rows), task.seed)
    groups = [
        Group("test", len(items.rows), items.feats_TD[shown], items.labels_T[shown], items.scored.correct_T[shown])
    ]
    reasons: Reasons = {}
    if items.learned_PD is not None:
        part = feature_map.part(len(task.pool), task.seed)
        learned = Group("learned from", len(task.pool), items.learned_PD[part], task.labels_N[task.pool][part])
        groups.insert(0, learned)
    else:
        reasons["feature_map.groups.learned from"] = NOT_AT_HAND
    found = feature_map.feature_map(groups, task.class_names, what)
    return found, reasons if found else {"feature_map": "needs at least three items"}


def known_classes(task: Task, candidate: Candidate, names: Sequence[str]) -> tuple[dict[str, Any] | None, Reasons]:
    """Classes that the backbone has probably learned before."""
    if candidate.method == FROM_SCRATCH:
        return None, {"data.exposure": NO_START}
    found, reason = exposed.section(task, candidate.backbone.name, names)
    return found, {"data.exposure": reason} if reason else {}


def no_better(task: Task, selection: Selection, items: Items | None, what: str) -> list[flags.Flag]:
    """The flag of a model that a constant answer would do as well as: on selection data, and on the scored items."""
    names, found = task.class_names, []
    if len(selection.rows) and not selection.is_blind:
        labels = task.labels_N[selection.rows]
        right = selection.logits.argmax(1) == labels
        found.append(flags.no_better(right, labels, names, selection.what))
    if items is not None and len(items.labels_T):
        found.append(flags.no_better(items.scored.correct_T, items.labels_T, names, what))
    return flags.first(*found)


def _distortion(items: Items) -> tuple[dict[str, Any] | None, str]:
    before_TD, after_TD = items.frozen_TD, items.feats_TD
    if before_TD is None:
        return None, items.unmoved
    if before_TD.shape != after_TD.shape:
        return None, "the trained network's features have another width"
    if len(after_TD) < distortion.MIN_ITEMS:
        return None, f"needs {distortion.MIN_ITEMS} items; found {len(after_TD)}"
    # Items are stored class by class: every so many, and not the first ones.
    step = -(-len(after_TD) // distortion.MAX_ITEMS)
    before_TD, after_TD = before_TD[::step], after_TD[::step]
    return {
        "mean_relative_change": distortion.relative_change(before_TD, after_TD),
        "linear_cka": distortion.linear_cka(before_TD, after_TD),
        "num_samples": len(after_TD),
        "what": "pooled features of scored items, under the backbone as it came and as it is served",
        "stages": None,
        "other_images": None,
    }, ""


def _given(reasons: Reasons) -> Reasons:
    return {key: reason for key, reason in reasons.items() if reason}
