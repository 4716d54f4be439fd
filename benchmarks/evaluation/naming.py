"""Zero-shot: classes by name alone, scored on every picture of the set. Nothing is learned, so there are no seeds."""

from typing import Any

import numpy as np

from benchmarks.evaluation import sets
from benchmarks.evaluation.lab import Lab

SETS = ("stamps_photos", "emoji_google", "emoji_twitter")


def run(lab: Lab) -> dict[str, Any]:
    """Mean of the classes' accuracies, with a bootstrap interval over the pictures of each class."""
    rows, missing = [], []
    for name in SETS:
        try:
            pictures = lab.files(name)
        except sets.NotFound as error:
            missing.append(str(error))
            continue
        classes = sorted({path.split("/")[0] for path, _ in pictures})
        recipe = {"method": "zero_shot", "classes": [{"name": one.replace("_", " ")} for one in classes]}
        done = lab.run(recipe, None)
        renamed = [(path.replace("_", " ", path.split("/")[0].count("_")), data) for path, data in pictures]
        by_class = [
            lab.hits(done, [one for one in renamed if one[0].split("/")[0] == label.replace("_", " ")])
            for label in classes
        ]
        means = [float(hits.mean()) for hits in by_class]
        chance = np.random.default_rng(0)
        draws = [np.mean([chance.choice(hits, len(hits)).mean() for hits in by_class]) for _ in range(2000)]
        low, high = np.percentile(draws, [2.5, 97.5])
        rows.append(
            {
                "set": name,
                "method": "zero_shot",
                "class_mean": round(float(np.mean(means)), 4),
                "low": round(float(low), 4),
                "high": round(float(high), 4),
                "chance": round(1 / len(classes), 4),
                "centring_mean": done["report"].get("details", {}).get("centring_mean"),
            }
        )
    return {"rows": rows, "not_found": missing}
