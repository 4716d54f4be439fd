"""Figures of a report that stand on selection data: flat metrics, verdicts, and why they may be missing."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from app.artifact.selection import TRANSFER, SelectionPredictions
from worker.contract.candidate import BLIND, Candidate, Selection
from worker.contract.outcome import Scratch
from worker.contract.task import Task
from worker.evaluate import sections
from worker.evaluate.sections import Scored
from worker.scores import intervals, metrics
from worker.scores.resampled import ONE_SEED, over_seeds

FOLDS_DRAWN = "accuracy out of folds that were drawn anew, each by heads fitted anew"
HOLDOUTS_DRAWN = "accuracy of networks that learned without one hold-out each, on it: luck of these items is in it"
ONE_DRAW = f"its folds were drawn once: {ONE_SEED}; an evaluation over folds with repeats has them"
ONE_NETWORK = f"one network was compared: {ONE_SEED}"
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


def predictions(task: Task, ours: Selection, against: Mapping[str, Selection | None]) -> SelectionPredictions | None:
    """What verdicts stand on, item by item; None where nothing could be named right.

    Args:
        task: the data.
        ours: the transfer's.
        against: the baselines', by their names in the report.
    """
    if ours.is_blind or not len(ours.rows):
        return None
    names_C = np.array(task.class_names, object)

    def named(one: Selection) -> list[str | None]:
        said_P = np.full(len(ours.rows), None, object)
        _, own, other = np.intersect1d(ours.rows, one.rows, return_indices=True)
        said_P[own] = names_C[one.logits[other].argmax(1)]
        return said_P.tolist()

    others = {name: named(one) for name, one in against.items() if one and np.isin(one.rows, ours.rows).any()}
    return SelectionPredictions(
        ids=task.index.ids_at(ours.rows),
        labels=names_C[task.labels_N[ours.rows]].tolist(),
        splits=task.index.splits_at(ours.rows),
        named={TRANSFER: named(ours), **others},
        what=ours.what,
        optimism=ours.optimism,
    )


def blind(selection: Selection, *, is_frozen: bool, has_scratch: bool) -> dict[str, str]:
    """Of `not_computed`: what selection data cannot tell where nothing in it could be named right."""
    if not selection.is_blind:
        return {}
    compared = (
        *(() if is_frozen else ("verdicts.vs_frozen",)),
        *(("verdict", "verdicts.vs_scratch") if has_scratch else ()),
    )
    return dict.fromkeys((*OF_SELECTION, "metrics.cv_accuracy_std", *compared), BLIND)


def seed_deviation(
    task: Task, candidate: Candidate, small: Scratch | None
) -> tuple[dict[str, dict[str, Any] | None], dict[str, str]]:
    """How far accuracies on selection data depend on draws alone, and why that may not be known.

    Nothing of it is in the intervals, which are of other items.
    """
    selected = candidate.selection
    labels_P, draws = task.labels_N[selected.rows], (selected.logits, *selected.again)
    own = [] if selected.is_blind else [float((logits.argmax(1) == labels_P).mean()) for logits in draws]
    own_spread = over_seeds(own, FOLDS_DRAWN)
    reasons = {"transfer": BLIND if selected.is_blind else _one_draw(task) if candidate.fold_accuracy else ONE_TRAINING}
    if small:
        reasons["scratch"] = ONE_NETWORK
    told = {
        "transfer": asdict(own_spread) if own_spread else None,
        "scratch": scratch_deviation(small) if small else None,
    }
    return told, {f"seed_deviation.{name}": why for name, why in reasons.items() if told[name] is None}


def scratch_deviation(small: Scratch) -> dict[str, Any] | None:
    """The same of networks from scratch; None where one was compared."""
    found = over_seeds(small.details["holdout_accuracies"], HOLDOUTS_DRAWN)
    return asdict(found) if found else None


def _one_draw(task: Task) -> str:
    """Why folds have no spread: `auto` draws them again where it has the time, so it is no advice to whoever ran it."""
    recipe = task.context.document.recipe or {}
    return ONE_DRAW if recipe.get("method") == "auto" else f"{ONE_DRAW}, and so has auto"
