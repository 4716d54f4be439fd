"""Methods on frozen features: each on the same splits of every set."""

from collections.abc import Iterator
from typing import Any

from benchmarks.evaluation import sets
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import Lab

SETS = ("stamps_photos", "emoji_google", "emoji_twitter", "digits", "mnist")
# Where pictures are small enough for a processor: 50 of each class, as in the reference figures of small training sets.
SMALL = {"digits": 50, "mnist": 50}
RECIPES: dict[str, dict[str, Any]] = {"linear_probe": {}, "few_shot": {}}


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Test accuracy by set and method, and the paired difference to the linear probe on the same splits."""
    there, missing = lab.found(SETS)
    rows = []
    for name, pictures in there.items():
        found: dict[str, list[float]] = {method: [] for method in RECIPES}
        for seed in lab.seeds:
            chosen = sets.per_class(pictures, SMALL[name], seed) if name in SMALL else pictures
            dataset = lab.store(name, chosen, seed)
            for method, fields in RECIPES.items():
                done = lab.run({"method": method, **fields}, dataset, seed=seed)
                found[method].append(done["metrics"]["test_accuracy"])
        for method, values in found.items():
            gains = [ours - probe for ours, probe in zip(values, found["linear_probe"], strict=True)]
            rows.append(
                {
                    "set": name,
                    "method": method,
                    "accuracies": [round(value, 4) for value in values],
                    **over_seeds(values),
                    "gain_over_probe": over_seeds(gains),
                }
            )
    yield {"rows": rows, "not_found": missing, "images_per_class": SMALL}
