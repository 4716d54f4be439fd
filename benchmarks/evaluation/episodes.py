"""Few pictures of each class: random pools of 1 and of 5, all other pictures for testing.

Draws share their pictures, so the interval over draws says how much the draw matters and no more.
"""

from typing import Any

import numpy as np

from benchmarks.evaluation import sets
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import Lab
from worker.methods import few_shot

SETS = ("stamps_photos", "emoji_google", "emoji_twitter", "digits", "mnist")
SHOTS = (1, 5)
DRAWS = 20


def run(lab: Lab) -> dict[str, Any]:
    """Accuracy of `few_shot` by set and number of pictures of each class."""
    rows, missing = [], []
    for name in SETS:
        try:
            pictures = lab.files(name)
        except sets.NotFound as error:
            missing.append(str(error))
            continue
        feats_ND, labels_N = lab.features(lab.store(name, pictures, 0))
        for shots in SHOTS:
            found = [_accuracy(feats_ND, labels_N, shots, draw) for draw in range(DRAWS)]
            summary = over_seeds([value for value, _ in found])
            summary["num_draws"] = summary.pop("num_seeds")
            chosen = sorted({what.split(",")[0] for _, what in found})
            rows.append({"set": name, "method": "few_shot", "shots": shots, **summary, "chosen": chosen})
    return {"rows": rows, "not_found": missing}


def _accuracy(feats_ND: Any, labels_N: Any, shots: int, draw: int) -> tuple[float, str]:
    """Accuracy on the pictures that were not drawn, and what was chosen."""
    chance = np.random.default_rng(draw)
    classes = np.unique(labels_N)
    pool = np.concatenate([chance.permutation(np.flatnonzero(labels_N == one))[:shots] for one in classes])
    rest = np.setdiff1d(np.arange(len(labels_N)), pool)
    fitted = few_shot.fit(feats_ND[pool], labels_N[pool], np.arange(len(pool)), pool, len(classes), draw)
    predicted = fitted.head.logits(feats_ND[rest]).argmax(1)
    return float((predicted == labels_N[rest]).mean()), str(fitted.details["chosen"])
