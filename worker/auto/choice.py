"""How `auto` compares: paired, item by item, on images that no candidate has learned from. Torch-free.

The one-standard-error rule takes the cheapest that is not clearly worse (`evaluate/selection.py`). Beside the choice
come predictions in which it had no part (`evaluate/judged.py`), for the verdict.

Shape legend: W candidates, N items, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.contract.candidate import Candidate, Selection
from worker.contract.task import Rows, Task
from worker.evaluate import judged, selection
from worker.evaluate.selection import Reason, one_standard_error
from worker.scores.objective import item_scores

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
