"""Alignments on their own: the source's probe behind each, on target pictures that nothing has seen.

The same names are hidden from both domains. Each alignment is fitted on the features of what may be seen, pair by pair
where it wants pairs, and stands between the target's features and the probe of the source, as a domain of a model does.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.alignments import METHODS
from benchmarks.evaluation import sets
from benchmarks.evaluation.adaptation import HIDDEN_SHARE
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import BACKBONE, Lab, Measured
from worker.alignments import pairs
from worker.alignments.table import FITS, Given
from worker.training import probing

PAIRS = (("emoji_google", "emoji_twitter"), ("emoji_twitter", "emoji_google"))
NONE = "none"


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Accuracy on hidden target pictures by alignment, and what it gains over none."""
    rows, missing = [], []
    for source, target in PAIRS:
        try:
            fixed, moving = (lab.measured(lab.store(name, lab.files(name), 0)) for name in (source, target))
        except sets.NotFound as error:
            missing.append(str(error))
            continue
        found: dict[str, list[float]] = {}
        for seed in lab.seeds:
            for method, value in _one(fixed, moving, seed).items():
                found.setdefault(method, []).append(value)
        for method, values in found.items():
            gains = np.subtract(values, found[NONE]).tolist()
            kind = "none" if method == NONE else "paired" if METHODS[method].paired else "unpaired"
            row = {"source": source, "target": target, "alignment": method, "kind": kind, **over_seeds(values)}
            rows.append({**row, "gain": over_seeds(gains)})
    yield {"rows": rows, "not_found": missing}


def _one(fixed: Measured, moving: Measured, seed: int) -> dict[str, float]:
    """Every alignment under one choice of what is hidden."""
    of_fixed, of_moving = pairs.match(
        fixed.index, moving.index, np.arange(len(fixed.index)), np.arange(len(moving.index)), "name"
    )
    hidden = np.zeros(len(of_fixed), bool)
    hidden[np.random.default_rng(seed).permutation(len(hidden))[: int(HIDDEN_SHARE * len(hidden))]] = True
    seen_fixed, seen_moving, scored = of_fixed[~hidden], of_moving[~hidden], of_moving[hidden]
    names = moving.index.classes
    place = np.array([fixed.index.classes.index(name) for name in names])
    labels_T = place[moving.labels_N[scored]]
    head, *_ = probing.fit(
        fixed.features_ND[seen_fixed],
        fixed.labels_N[seen_fixed],
        fixed.index.group[seen_fixed],
        seen_fixed,
        len(fixed.index.classes),
        seed,
    )

    def accuracy(features_TD: NDArray[np.floating]) -> float:
        said = head.logits(features_TD.astype(np.float32)).argmax(1)
        return float((said == labels_T).mean())

    given = Given(
        moving.features_ND[seen_moving].astype(np.float64),
        fixed.features_ND[seen_fixed].astype(np.float64),
        moving.index.group[seen_moving],
        fixed.index.group[seen_fixed],
    )
    target_TD = moving.features_ND[scored].astype(np.float64)
    found = {NONE: accuracy(target_TD)}
    for method, kind in METHODS.items():
        both = {"source": "ds_fixed", "target": "ds_moving", "backbone": BACKBONE, "seed": seed}
        found[method] = accuracy(FITS[kind](kind.model_validate(both), given).affine.apply(target_TD))
    return found
