"""Figures of a report that stand on selection data: flat metrics, verdicts, and why they may be missing."""

from typing import Any

import numpy as np

from worker.contract.outcome import BLIND, Candidate, Selection
from worker.contract.task import Task
from worker.evaluate import sections
from worker.evaluate.sections import Scored
from worker.scores import intervals, metrics

OF_SELECTION = ("metrics.val_accuracy", "metrics.selection_accuracy", "metrics.cv_accuracy_mean")


def flat(
    task: Task,
    candidate: Candidate,
    tested: Scored,
    scores: metrics.ClassificationMetrics,
    ece: float | None,
    *,
    is_val_held: bool,
) -> dict[str, float | int | None]:
    """Flat metrics; null where a number would not be honest."""
    found: dict[str, float | int | None] = {f"test_{name}": value for name, value in scores.flat().items()}
    found |= intervals.bounds(tested.bounds, "test_")
    selected = candidate.selection
    right = selected.logits.argmax(1) == task.labels_N[selected.rows]
    on_val = np.isin(selected.rows, task.val)
    is_told = len(task.val) > 0 and is_val_held and not selected.is_blind
    folds = candidate.fold_accuracy
    found |= {
        "val_accuracy": float(right[on_val].mean()) if is_told else None,
        "selection_accuracy": None if selected.is_blind else float(right.mean()),
        "cv_accuracy_mean": float(np.mean(folds)) if folds else None,
        "cv_accuracy_std": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        "ece": ece,
        "num_test": len(tested.correct_T),
    }
    return found


def unheld(task: Task, selected: Selection) -> str:
    """Why there is no accuracy on the validation split; empty where all of it was held out."""
    num, total = int(np.isin(task.val, selected.rows).sum()), len(task.val)
    if num == total:
        return ""
    return (
        f"{num} of {total} items of the validation split were held out, the others were learned from; see "
        "selection_accuracy, which is of all that were held out"
    )


def verdict(task: Task, ours: Selection, theirs: Selection) -> dict[str, Any] | None:
    """Paired, on the selection items that both have predicted without having learned from them."""
    rows, own, other = np.intersect1d(ours.rows, theirs.rows, return_indices=True)
    if not len(rows) or ours.is_blind:
        return None
    labels = task.labels_N[rows]
    a = ours.logits[own].argmax(1) == labels
    b = theirs.logits[other].argmax(1) == labels
    found = sections.evidence(a, b, f"the transfer {ours.what}; the other {theirs.what}")
    return {**found, "optimism": ours.optimism}


def blind(selection: Selection, *, is_frozen: bool, has_scratch: bool) -> dict[str, str]:
    """Of `not_computed`: what selection data cannot tell where nothing in it could be named right."""
    if not selection.is_blind:
        return {}
    compared = (
        *(() if is_frozen else ("verdicts.vs_frozen",)),
        *(("verdict", "verdicts.vs_scratch") if has_scratch else ()),
    )
    return dict.fromkeys((*OF_SELECTION, *compared), BLIND)
