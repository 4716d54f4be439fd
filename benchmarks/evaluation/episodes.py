"""Few pictures of each class: random pools of 1 and of 5 of all classes, all other pictures for testing.

Draws share their pictures, so the interval over draws says how much the draw matters and no more.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.lab import Lab
from worker.evaluate import episodes
from worker.methods import few_shot

SETS = ("stamps_photos", "emoji_google", "emoji_twitter", "digits", "mnist")
SHOTS = (1, 5)
DRAWS = 20

Float = NDArray[np.float32]
Ints = NDArray[np.int64]


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Accuracy of `few_shot` by set and number of pictures of each class."""
    there, missing = lab.found(SETS)
    rows = []
    for name, pictures in there.items():
        found = lab.measured(lab.store(name, pictures, 0))
        for shots in SHOTS:
            score = episodes.run(
                found.features_ND, found.labels_N, _classify, num_shots=shots, num_episodes=DRAWS, seed=0
            )
            rows.append(
                {
                    "set": name,
                    "method": "few_shot",
                    "shots": shots,
                    "num_ways": len(found.index.classes),
                    "num_draws": DRAWS,
                    **{key: round(getattr(score, key), 4) for key in ("mean", "low", "high", "standard_deviation")},
                }
            )
    yield {"rows": rows, "not_found": missing}


def _classify(support_SD: Float, labels_S: Ints, num_classes: int, query_QD: Float) -> Ints:
    places = np.arange(len(labels_S))
    return np.asarray(
        few_shot.fit(support_SD, labels_S, places, places, num_classes, 0).head.logits(query_QD).argmax(1)
    )
