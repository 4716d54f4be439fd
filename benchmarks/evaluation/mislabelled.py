"""How many of the labels that were made wrong an advice names, and how many of those that it names are wrong.

Each seed gives one label in twenty another class, any of the others alike, and draws the folds. Features, copies and
the judgement are those of the job. Recall and precision are of all seeds together, the intervals over seeds; one
dataset alone may fall short of both, and how many do is told. What is named in the data as they are may be wrong in
truth: it is told, and judged by nobody.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation import sets
from benchmarks.evaluation.frozen import SETS, SMALL
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import Lab, Measured
from worker.advice import label_errors, out_of_fold
from worker.advice.label_errors import Judged

NUM_SEEDS = 10
SHARE = 0.05
RECALL, PRECISION = 0.7, 0.5


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """A row for each set."""
    there, missing = lab.found(SETS)
    rows = []
    for name, pictures in there.items():
        chosen = sets.per_class(pictures, SMALL[name], 0) if name in SMALL else pictures
        measured = lab.measured(lab.store(name, chosen, 0))
        rows.append({"set": name, **_scored(measured, range(max(NUM_SEEDS, len(lab.seeds))))})
        yield {"rows": rows, "not_found": missing, "share": SHARE, "images_per_class": SMALL}


def _scored(measured: Measured, seeds: range) -> dict[str, Any]:
    found = [_one(measured, seed) for seed in seeds]
    named, right, wrong, own = (sum(one[key] for one in found) for key in ("named", "right", "wrong", "own"))
    plain = _judged(measured, measured.labels_N, 0)
    return {
        "images": len(measured.labels_N),
        "classes": int(measured.labels_N.max()) + 1,
        "precision": round(right / max(named, 1), 4),
        "recall": round(right / wrong, 4),
        "own_label_named": round(own / max(right, 1), 4),
        "precision_over_seeds": over_seeds([one["right"] / max(one["named"], 1) for one in found]),
        "recall_over_seeds": over_seeds([one["right"] / one["wrong"] for one in found]),
        "lowest_recall": round(min(one["right"] / one["wrong"] for one in found), 4),
        "seeds_at_both_goals": sum(
            one["right"] >= RECALL * one["wrong"] and one["right"] >= PRECISION * one["named"] for one in found
        ),
        "num_seeds": len(found),
        "named_in_plain_data": len(plain.suspects),
    }


def _one(measured: Measured, seed: int) -> dict[str, int]:
    chance = np.random.default_rng(seed)
    true_N = measured.labels_N
    moved = chance.permutation(len(true_N))[: round(SHARE * len(true_N))]
    num_classes, labels_N = int(true_N.max()) + 1, true_N.copy()
    labels_N[moved] = (true_N[moved] + chance.integers(1, num_classes, len(moved))) % num_classes
    judged = _judged(measured, labels_N, seed)
    right = np.intersect1d(judged.suspects, moved)
    own = int((judged.confident.class_N[right] == true_N[right]).sum())
    return {"named": len(judged.suspects), "right": len(right), "wrong": len(moved), "own": own}


def _judged(measured: Measured, labels_N: NDArray[np.int64], seed: int) -> Judged:
    num_classes = int(measured.labels_N.max()) + 1
    logits_NC = out_of_fold.logits(measured.features_ND, labels_N, measured.index.group, num_classes, seed)
    return label_errors.judge(logits_NC, labels_N)
