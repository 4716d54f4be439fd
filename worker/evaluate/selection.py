"""Choose between candidates scored on the same items: the one-standard-error rule towards the cheaper. Torch-free.

The cheapest candidate whose mean score is within one standard error of the best is taken (Breiman et al., CART, 1984,
section 3.4.3), with the standard error of the paired difference, since all candidates saw the same items. A rule
"only if the 95 % lower bound of the gain is above 0" would refuse most true gains on small sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# One item of 100 between two candidates is exactly one standard error: rounding must not decide.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Candidate:
    """A way to solve the task, what it costs, and its score on every selection item (0/1 or a real number).

    Shape:
        scores_N: [N].
    """

    name: str
    cost: float
    scores_N: NDArray[np.floating] | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True)
class Reason:
    """How one candidate fared; ``behind`` and ``standard_error`` are those of the paired difference to the best."""

    name: str
    cost: float
    mean: float
    behind: float
    standard_error: float
    within_one_error: bool
    chosen: bool
    text: str


@dataclass(frozen=True)
class Choice:
    """Index of the chosen and of the best candidate, and a reason per candidate in the order given."""

    index: int
    best_index: int
    reasons: list[Reason]


def one_standard_error(candidates: Sequence[Candidate]) -> Choice:
    """Take the cheapest candidate within one standard error of the best; equal costs go to the higher mean.

    Raises:
        ValueError: when there is no candidate, no item, or the candidates were scored on different numbers of items.
    """
    sizes = {candidate.scores_N.shape for candidate in candidates}
    if len(sizes) != 1 or candidates[0].scores_N.ndim != 1 or candidates[0].scores_N.size == 0:
        raise ValueError(
            f"Expected candidates scored on the same items, at least one of each; found shapes {sorted(sizes)}."
        )
    scores = np.stack([candidate.scores_N for candidate in candidates]).astype(np.float64)
    means = scores.mean(axis=1)
    costs = np.array([candidate.cost for candidate in candidates])
    best = int(np.lexsort((costs, -means))[0])
    differences = scores[best] - scores
    num_items = scores.shape[1]
    behind = differences.mean(axis=1)
    errors = differences.std(axis=1, ddof=1) / np.sqrt(num_items) if num_items > 1 else np.zeros(len(candidates))
    within = behind <= errors + _ROUNDING
    order = np.lexsort((-means, costs))
    chosen = int(next(index for index in order if within[index]))
    reasons = [
        Reason(
            name=candidate.name,
            cost=candidate.cost,
            mean=float(means[index]),
            behind=float(behind[index]),
            standard_error=float(errors[index]),
            within_one_error=bool(within[index]),
            chosen=index == chosen,
            text=_text(candidates, index, chosen, best, float(behind[index]), float(errors[index])),
        )
        for index, candidate in enumerate(candidates)
    ]
    return Choice(chosen, best, reasons)


def _text(candidates: Sequence[Candidate], index: int, chosen: int, best: int, behind: float, error: float) -> str:
    own, winner, top = candidates[index], candidates[chosen], candidates[best]
    score = f"{own.name}: mean score {own.scores_N.mean():.4f}, cost {own.cost:.3g}"
    if index == best:
        ending = "the best" if index == chosen else f"the best, but {winner.name} is cheaper and not clearly worse"
        return f"{score}; {ending}."
    against = f"{behind:.4f} behind {top.name}, standard error of the difference {error:.4f}"
    if behind > error + _ROUNDING:
        return f"{score}; {against}: worse by more than one standard error."
    ending = "cheapest within one standard error, chosen" if index == chosen else f"{winner.name} was preferred"
    return f"{score}; {against}: {ending}."
