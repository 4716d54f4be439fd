"""What every report has beside its scores: the worst class, who is surest, how features lie, what is known of them.

Nothing here chooses. Where a figure would not be honest it is None, and `not_computed` says why, by the key's path.

Shape legend: T scored items, P of the pool, D features.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.outcome import Candidate, Selection
from worker.contract.task import Float, Rows, Task
from worker.evaluate import distortion, exposed, feature_map, flags, out_of_distribution, robustness
from worker.evaluate.corruptions import CORRUPTIONS
from worker.evaluate.feature_map import Group
from worker.evaluate.metrics import ClassScores
from worker.evaluate.out_of_distribution import Strangers
from worker.evaluate.risk_coverage import MIN_ITEMS, risk_coverage
from worker.evaluate.sections import MIN_ECE_ITEMS, Scored
from worker.evaluate.worst_class import worst_class

Reasons = dict[str, str]

ASK = 'it runs images through the model again; ask for "report": "full"'
UNCHANGED = "the backbone is served unchanged"
NOT_AT_HAND = "features of what was learned from, under what is served, are not at hand"
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
    """

    rows: Rows
    labels_T: NDArray[np.int64]
    scored: Scored
    feats_TD: Float
    frozen_TD: Float | None = None
    learned_PD: Float | None = None


def num_passes(num_scored: int) -> int:
    """How many images a full report runs through the model beside the scored ones themselves."""
    changed = (1 + len(CORRUPTIONS)) * min(num_scored, robustness.MAX_IMAGES)
    return changed + (out_of_distribution.NUM_PATTERNS if num_scored >= out_of_distribution.MIN_ITEMS else 0)


def of_items(
    task: Task, candidate: Candidate, items: Items, per_class: list[ClassScores], strange: Strangers | None = None
) -> tuple[dict[str, Any], Reasons]:
    """Parts that any labelled items allow.

    Args:
        task: the data.
        candidate: what is served.
        items: at least one.
        per_class: scores of the classes.
        strange: images of other classes, where there are any; else patterns are made.
    """
    worst = worst_class(per_class)
    document: dict[str, Any] = {"worst_class": worst and asdict(worst)}
    reasons: Reasons = {}
    document["feature_distortion"], reasons["feature_distortion"] = _distortion(items.frozen_TD, items.feats_TD)
    if task.context.document.report_mode != "full":
        document |= {"robustness": None, "out_of_distribution": None}
        reasons |= {"robustness": ASK, "out_of_distribution": ASK}
        return document, _given(reasons)
    document["robustness"] = robustness.robustness(task, candidate, items.rows, items.labels_T)
    document["out_of_distribution"], reasons["out_of_distribution"] = None, ""
    num = len(items.rows) if strange is None else min(len(items.rows), len(strange.feats_MD))
    if num < out_of_distribution.MIN_ITEMS:
        reasons["out_of_distribution"] = f"needs {out_of_distribution.MIN_ITEMS} images of either kind; found {num}"
    else:
        strange = strange or out_of_distribution.patterns(task, candidate)
        document["out_of_distribution"] = out_of_distribution.section(
            candidate, items.feats_TD, strange, items.learned_PD, task.seed
        )
        if items.learned_PD is None:
            reasons["out_of_distribution.auroc.nearest"] = NOT_AT_HAND
    return document, _given(reasons)


def confidence(scored: Scored) -> tuple[dict[str, Any] | None, Reasons]:
    """Risk and coverage of the scored items, and why calibration errors may be missing."""
    num, reasons = len(scored.correct_T), {}
    if num < MIN_ECE_ITEMS:
        few = f"needs {MIN_ECE_ITEMS} scored items; found {num}"
        reasons = {"calibration.ece": few, "calibration.adaptive_ece": few}
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


def _distortion(before_TD: Float | None, after_TD: Float) -> tuple[dict[str, Any] | None, str]:
    if before_TD is None:
        return None, UNCHANGED
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
    }, ""


def _given(reasons: Reasons) -> Reasons:
    return {key: reason for key, reason in reasons.items() if reason}
