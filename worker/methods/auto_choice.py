"""How `auto` compares: paired, item by item, on images that no candidate has learned from. Torch-free.

The one-standard-error rule takes the cheapest that is not clearly worse (`evaluate/selection.py`). Beside the choice
come predictions in which it had no part (`evaluate/judged.py`), for the verdict.

Shape legend: W candidates, N items, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.contract.outcome import Candidate, Selection
from worker.contract.task import Rows, Task
from worker.evaluate import judged, selection
from worker.evaluate.selection import Reason, one_standard_error

JUDGED = "each half named as the choice by the other half says"


@dataclass(frozen=True)
class Entry:
    """One candidate of a choice: its step, what it costs, and itself."""

    step: str
    cost: float
    candidate: Candidate


@dataclass(frozen=True)
class Chosen:
    """The entry that was taken, with `judged` filled in, and how each fared, in their order."""

    entry: Entry
    reasons: tuple[Reason, ...]
    is_blind: bool = False


def choose(entries: Sequence[Entry], task: Task, objective: str) -> Chosen:
    """The cheapest within one standard error of the best, on the items that all have predicted.

    An item's score is its mean over the draws of the folds; where something has only one, as a training, over that.
    """
    evidence = [one.candidate.judged or one.candidate.selection for one in entries]
    rows, is_blind = evidence[0].rows, all(one.is_blind for one in evidence)
    for one in evidence[1:]:
        rows = np.intersect1d(rows, one.rows)
    labels_N = task.labels_N[rows]
    predicted_RWN = _predicted(evidence, rows)

    def rule(seen_N: NDArray[np.bool_]) -> selection.Choice:
        scores_WN = np.mean(
            [
                [item_scores(predicted_N[seen_N], labels_N[seen_N], objective) for predicted_N in predicted_WN]
                for predicted_WN in predicted_RWN
            ],
            axis=0,
        )
        return one_standard_error(
            [
                selection.Candidate(entry.step, entry.cost, scores_N)
                for entry, scores_N in zip(entries, scores_WN, strict=True)
            ]
        )

    choice = rule(np.ones(len(rows), bool))
    taken = entries[choice.index]
    if len(entries) > 1:
        half_N = judged.halves(labels_N, task.groups_N[rows], task.seed)
        fair_RN = judged.cross_fitted(predicted_RWN, half_N, lambda seen_N: rule(seen_N).index)
        fair, *again = (judged.one_hot(fair_N, task.num_classes) for fair_N in fair_RN)
        what = f"{evidence[choice.index].what}, {JUDGED}"
        found = Selection(rows, fair, what, evidence[choice.index].optimism, tuple(again), is_blind)
        taken = replace(taken, candidate=replace(taken.candidate, judged=found))
    return Chosen(taken, tuple(choice.reasons), is_blind)


def _predicted(evidence: Sequence[Selection], rows: Rows) -> NDArray[np.int64]:
    """Classes named for the rows in each draw of the folds, R of them; what has one draw says the same in all.

    Shape:
        rows: [N], sorted
        result: [R, W, N]
    """
    num_draws = 1 + max(len(one.again) for one in evidence)
    places = [np.searchsorted(one.rows, rows) for one in evidence]
    drawn = [(one.logits, *(one.again or (one.logits,) * (num_draws - 1))) for one in evidence]
    return np.array(
        [
            [logits[draw][place].argmax(1) for logits, place in zip(drawn, places, strict=True)]
            for draw in range(num_draws)
        ]
    )


def item_scores(predicted_N: NDArray[np.int64], labels_N: NDArray[np.int64], objective: str) -> NDArray[np.float64]:
    """Scores per item, whose mean is the objective and whose paired differences have its standard error.

    Right or wrong for `accuracy`. `macro_f1` is no mean over items; its jackknife pseudo-values N F - (N - 1) F(-i)
    stand for it (Tukey, 1958; Efron and Tibshirani, 1993, section 11.5). Classes without an item do not count.

    Shape:
        predicted_N, labels_N, result: [N]
    """
    if objective == "accuracy":
        return np.asarray(predicted_N == labels_N, np.float64)
    number, size = len(labels_N), int(max(labels_N.max(), predicted_N.max())) + 1
    right_N = predicted_N == labels_N
    hits_C = np.bincount(labels_N[right_N], minlength=size)
    # Twice the hits over all that was said and all that is: 2 TP / (2 TP + FP + FN).
    sum_C = np.bincount(labels_N, minlength=size) + np.bincount(predicted_N, minlength=size)
    counts_C = np.bincount(labels_N, minlength=size) > 0
    f1_C = np.where(counts_C, 2 * hits_C / np.maximum(sum_C, 1), 0.0)
    num_classes = counts_C.sum()
    # Without item i its label's class and its prediction's class change, and no other.
    own_N = 2 * (hits_C[labels_N] - right_N) / np.maximum(sum_C[labels_N] - 1 - right_N, 1)
    said_N = 2 * hits_C[predicted_N] / np.maximum(sum_C[predicted_N] - 1, 1) * counts_C[predicted_N]
    change_N = own_N - f1_C[labels_N] + np.where(right_N, 0.0, said_N - f1_C[predicted_N])
    total = f1_C.sum()
    without_N = (total + change_N) / num_classes
    pseudo_N = number * total / num_classes - (number - 1) * without_N
    # Their mean is the jackknife's estimate, a little above the score; what is told is the score.
    return np.asarray(pseudo_N + (total / num_classes - pseudo_N.mean()))
