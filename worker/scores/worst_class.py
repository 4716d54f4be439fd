"""The class that a model finds hardest. Torch-free.

Of many classes with few items each, one is far below the others by chance alone, so its recall has an interval:
Wilson's (J. Am. Stat. Assoc. 22, 1927), a closed form that stays within 0 and 1 and has width where all are right.
"""

from dataclasses import dataclass
from math import sqrt

from worker.scores.metrics import ClassScores

Z95 = 1.959963984540054


@dataclass(frozen=True)
class WorstClass:
    """A class's recall with its 95 % interval."""

    label: str
    recall: float
    low: float
    high: float
    num_samples: int


def worst_class(per_class: list[ClassScores]) -> WorstClass | None:
    """The class with the lowest recall, of equal ones that with the most items; None where no class has an item."""
    seen = [(row["recall"], -row["num_samples"], row["name"]) for row in per_class if row["recall"] is not None]
    if not seen:
        return None
    recall, size, name = min(seen)
    low, high = wilson(round(recall * -size), -size)
    return WorstClass(name, recall, low, high, -size)


def wilson(num_hits: int, num_samples: int) -> tuple[float, float]:
    """95 % score interval of a proportion.

    Raises:
        ValueError: no sample.
    """
    if num_samples < 1:
        raise ValueError(f"expected at least one sample; found {num_samples}")
    share, square = num_hits / num_samples, Z95**2 / num_samples
    middle = share + square / 2
    half = Z95 * sqrt(share * (1 - share) / num_samples + square / (4 * num_samples))
    return max((middle - half) / (1 + square), 0.0), min((middle + half) / (1 + square), 1.0)
