"""Zero-shot: classes by name alone, scored on every picture of the set. Nothing is learned, so there are no seeds.

Features are centred by a mean: the one that is shipped with the backbone (of Google's drawings), or that of other
pictures, given as a dataset without labels. The goals are those of means from elsewhere; what the set's own pictures
would give as a mean stands beside them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.evaluation import sets
from benchmarks.evaluation.lab import Lab
from benchmarks.evaluation.sets import File
from worker.attempt.document import DatasetDocument

SHIPPED = "shipped"
# Set -> whose means to try. The shipped one is of Google's drawings, and so no mean from elsewhere for them.
MEANS = {
    "stamps_photos": (SHIPPED, "emoji_twitter", "stamps_photos"),
    "emoji_google": ("emoji_twitter", "stamps_photos", "emoji_google"),
    "emoji_twitter": (SHIPPED, "stamps_photos", "emoji_twitter"),
}
APPROACHES = ("combined", "head_map", "conse")


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Mean of the classes' accuracies, with a bootstrap interval over the pictures of each class."""
    rows, missing = [], []
    for name, means in MEANS.items():
        try:
            pictures = lab.files(name)
            middles = {mean: _unlabelled(lab, mean) for mean in means}
        except sets.NotFound as error:
            missing.append(str(error))
            continue
        for mean, middle in middles.items():
            rows += [
                {"set": name, "approach": approach, "centre": mean, **_scored(lab, pictures, middle, approach)}
                for approach in APPROACHES
            ]
    yield {"rows": rows, "not_found": missing}


def _unlabelled(lab: Lab, mean: str) -> DatasetDocument | None:
    """The pictures of a set without their folders; None for the mean that is shipped."""
    if mean == SHIPPED:
        return None
    pictures = [(f"{number:05d}-{name.split('/')[1]}", data) for number, (name, data) in enumerate(lab.files(mean))]
    return lab.store(f"{mean}-unlabelled", pictures, 0)


def _scored(lab: Lab, pictures: Sequence[File], middle: DatasetDocument | None, approach: str) -> dict[str, Any]:
    """Classes are called as their folders are, with spaces."""
    renamed = [("/".join([name.split("/")[0].replace("_", " "), name.split("/")[1]]), data) for name, data in pictures]
    labels = np.array([name.split("/")[0] for name, _ in renamed])
    classes = np.unique(labels)
    recipe = {"method": "zero_shot", "classes": [{"name": one} for one in classes.tolist()], "approach": approach}
    recipe |= {"centre": "dataset" if middle else "shipped"}
    hits = lab.hits(lab.run(recipe, middle), renamed)
    by_class = [hits[labels == one] for one in classes]
    chance = np.random.default_rng(0)
    draws = [np.mean([chance.choice(one, len(one)).mean() for one in by_class]) for _ in range(2000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return {
        "class_mean": round(float(np.mean([one.mean() for one in by_class])), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "chance": round(1 / len(classes), 4),
    }
