"""What a model of three classes is said to have predicted."""

import numpy as np

from app.artifact.predicted import Predictions

CLASSES = ("cat", "dog", "owl")


def make(num: int) -> Predictions:
    """Of so many items of the test split, some of them wrong."""
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), num).astype(np.float32)
    return Predictions(
        ids=[f"s{index}" for index in range(num)],
        sha256=[f"{index:064x}" for index in range(num)],
        labels=[CLASSES[index % 3] for index in range(num)],
        predicted=[CLASSES[row.argmax()] for row in probabilities],
        splits=["test"] * num,
        probabilities=probabilities,
    )
