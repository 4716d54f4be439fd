"""Figures of a report that stand on selection data: flat metrics, verdicts, and why they may be missing."""

from dataclasses import asdict
from typing import Any

import numpy as np

from worker.contract.outcome import BLIND, Candidate, Scratch, Selection
from worker.contract.task import Task
from worker.evaluate import sections
from worker.evaluate.sections import Scored
from worker.scores import intervals, metrics
from worker.scores.resampled import ONE_SEED, over_seeds

FOLDS_DRAWN = "accuracy out of folds that were drawn anew, each by heads fitted anew"
HOLDOUTS_DRAWN = "accuracy of networks that learned without one hold-out each, on it: luck of these items is in it"
ONE_DRAW = f"its folds were drawn once: {ONE_SEED}; an evaluation over folds with repeats has them"
ONE_TRAINING = f"it was trained once: {ONE_SEED}; an evaluation over folds with repeats trains it more often"
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


def seed_deviation(
    task: Task, candidate: Candidate, small: Scratch | None
) -> tuple[dict[str, dict[str, Any] | None], dict[str, str]]:
    """How far accuracies on selection data depend on draws alone, and why that may not be known.

    Nothing of it is in the intervals, which are of other items.
    """
    selected = candidate.selection
    labels_P, draws = task.labels_N[selected.rows], (selected.logits, *selected.again)
    own = [] if selected.is_blind else [float((logits.argmax(1) == labels_P).mean()) for logits in draws]
    found = {"transfer": over_seeds(own, FOLDS_DRAWN)}
    reasons = {"transfer": BLIND if selected.is_blind else _one_draw(task) if candidate.fold_accuracy else ONE_TRAINING}
    if small:
        found["scratch"] = over_seeds(small.details["holdout_accuracies"], HOLDOUTS_DRAWN)
        reasons["scratch"] = f"one network was compared: {ONE_SEED}"
    spread = {name: found.get(name) for name in ("transfer", "scratch")}
    told = {name: asdict(one) if one else None for name, one in spread.items()}
    return told, {f"seed_deviation.{name}": why for name, why in reasons.items() if told[name] is None}


def _one_draw(task: Task) -> str:
    """Why folds have no spread: `auto` draws them again where it has the time, so it is no advice to whoever ran it."""
    recipe = task.context.document.recipe or {}
    return ONE_DRAW if recipe.get("method") == "auto" else f"{ONE_DRAW}, and so has auto"
