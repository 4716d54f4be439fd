"""Few-shot episodes from cached features: N classes, K images each to learn from, the others to be named.

The protocol of few-shot benchmarks (Vinyals et al., arXiv 1606.04080): the mean accuracy of many random episodes with
its 95 % interval. Episodes drawn from one set share images, so that the interval speaks of the draw of episodes and
not of another set of images, which would differ more (arXiv 2409.02850): `standard_deviation` says how much one draw
of K images differs from the next, and that is what a user with one such draw should look at. Torch-free.

Shape legend: N images, D features, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Ints = NDArray[np.int64]
# (features and labels to learn from, number of classes, features to name) -> labels.
Classify = Callable[[Float, Ints, int, Float], Ints]
# Two-sided 95 % of the normal distribution.
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Episode:
    """One draw: rows to learn from, rows to name, and the labels of both among its own classes.

    Shape:
        support: [N * K]; query: any; the labels the same
    """

    support: Ints
    query: Ints
    support_labels: Ints
    query_labels: Ints
    num_ways: int


@dataclass(frozen=True, slots=True)
class EpisodeScore:
    """Mean accuracy of all episodes, its 95 % interval, and the deviation from one episode to the next."""

    mean: float
    low: float
    high: float
    standard_deviation: float
    accuracies: tuple[float, ...]


def draw(
    labels_N: NDArray[np.integer],
    num_shots: int,
    generator: np.random.Generator,
    *,
    num_ways: int | None = None,
    num_queries: int | None = None,
) -> Episode:
    """One episode.

    Args:
        labels_N: class of each image.
        num_shots: images of each class to learn from.
        generator: of the draw.
        num_ways: classes, drawn at random; None takes all.
        num_queries: images of each class to name, at most; None takes all others.

    Shape:
        labels_N: [N]

    Raises:
        ValueError: fewer classes than asked for that have an image more than the shots.
    """
    classes, counts = np.unique(labels_N, return_counts=True)
    usable = classes[counts > num_shots]
    wanted = len(classes) if num_ways is None else num_ways
    if num_shots < 1 or wanted < 2 or len(usable) < wanted or (num_queries is not None and num_queries < 1):
        raise ValueError(
            f"expected at least one shot and query, and {max(wanted, 2)} classes of more than {num_shots} images; "
            f"found {len(usable)} of {len(classes)}; ask for fewer ways or shots"
        )
    chosen = classes if num_ways is None else np.sort(generator.choice(usable, wanted, replace=False))
    support, query = [], []
    for label in chosen:
        rows = generator.permutation(np.flatnonzero(labels_N == label))
        support.append(rows[:num_shots])
        query.append(rows[num_shots:] if num_queries is None else rows[num_shots : num_shots + num_queries])
    return Episode(
        np.concatenate(support),
        np.concatenate(query),
        np.repeat(np.arange(wanted), [len(rows) for rows in support]),
        np.repeat(np.arange(wanted), [len(rows) for rows in query]),
        wanted,
    )


def run(
    feats_ND: Float,
    labels_N: NDArray[np.integer],
    classify: Classify,
    *,
    num_shots: int,
    num_episodes: int,
    seed: int,
    num_ways: int | None = None,
    num_queries: int | None = None,
) -> EpisodeScore:
    """Scores a classifier on episodes; the same seed draws the same episodes for every classifier.

    Shape:
        feats_ND: [N, D]
        labels_N: [N]

    Raises:
        ValueError: fewer than two episodes, or as in `draw`.
    """
    if num_episodes < 2:
        raise ValueError(f"expected at least two episodes for an interval; found {num_episodes}")
    accuracies = []
    for number in range(num_episodes):
        generator = np.random.default_rng((seed, number))
        episode = draw(labels_N, num_shots, generator, num_ways=num_ways, num_queries=num_queries)
        named = classify(feats_ND[episode.support], episode.support_labels, episode.num_ways, feats_ND[episode.query])
        accuracies.append(float((named == episode.query_labels).mean()))
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    half = NORMAL_95 * deviation / np.sqrt(num_episodes)
    return EpisodeScore(mean, mean - half, mean + half, deviation, tuple(accuracies))
