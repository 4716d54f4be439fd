"""Scopes of fine-tuning that cost nothing to serve, against the frozen probe, on MNIST.

Each seed draws 50 images per class to learn from and 150 others to test on. The probe sees them at the backbone's own
resolution, the trained scopes at one that a processor can train at.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.evaluation import sets
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import Lab
from benchmarks.evaluation.sets import File

SET = "mnist"
LEARN, TEST = 50, 150
PROBE = "linear_probe"
RECIPES: dict[str, dict[str, Any]] = {
    "fine_tune, norm, 30 epochs at 96 px": {"method": "fine_tune", "scope": "norm", "epochs": 30, "resolution": 96},
    "fine_tune, ssf, 30 epochs at 96 px": {"method": "fine_tune", "scope": "ssf", "epochs": 30, "resolution": 96},
}


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Test accuracy by recipe, and its gain over the probe on the same images; seed by seed, since it takes long."""
    try:
        pictures = lab.files(SET)
    except sets.NotFound as error:
        yield {"rows": [], "not_found": [str(error)]}
        return
    found: dict[str, list[float]] = {name: [] for name in (PROBE, *RECIPES)}
    params: dict[str, int] = {}
    for seed in lab.seeds:
        dataset = lab.store(f"{SET}-split", _split(pictures, seed), seed)
        probe = lab.run({"method": PROBE}, dataset, seed=seed)
        found[PROBE].append(probe["metrics"]["test_accuracy"])
        params[PROBE] = probe["report"]["cost"]["trained_params"]
        for name, recipe in RECIPES.items():
            accuracy, outcome = lab.outcome(recipe, dataset, seed)
            found[name].append(accuracy)
            params[name] = max(params.get(name, 0), outcome.candidate.trained_params)
        yield _document(found, params)


def _document(found: dict[str, list[float]], params: dict[str, int]) -> dict[str, Any]:
    rows = [
        {
            "set": SET,
            "method": name,
            "accuracies": [round(value, 4) for value in values],
            **over_seeds(values),
            "gain_over_probe": over_seeds(np.subtract(values, found[PROBE]).tolist()),
            "trained_params": params[name],
        }
        for name, values in found.items()
    ]
    return {"rows": rows, "not_found": [], "images_per_class": {"learn": LEARN, "test": TEST}}


def _split(pictures: list[File], seed: int) -> list[File]:
    """Folders train/class and test/class."""
    drawn = sets.per_class(pictures, LEARN + TEST, seed)
    chance, by_class = np.random.default_rng(seed), {}
    for picture in drawn:
        by_class.setdefault(picture[0].split("/")[0], []).append(picture)
    return [
        (f"{'train' if place < LEARN else 'test'}/{members[number][0]}", members[number][1])
        for members in by_class.values()
        for place, number in enumerate(chance.permutation(len(members)))
    ]
