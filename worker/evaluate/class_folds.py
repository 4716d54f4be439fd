"""Which way to use images of seen classes does best on classes that are left out. No torch.

Every choice (method, strengths, penalty) is made on class-disjoint folds: the images of a left-out class play the
unseen ones. Where wanted classes are also seen (generalised zero-shot), scores of seen classes are lowered by one
penalty, calibrated stacking (arXiv 1605.04253), chosen by the harmonic mean of seen and left-out accuracy
(arXiv 1809.10120); a fifth of the images of the classes that stay is held out for that.

Shape legend: P images of the pool, D features, K seen classes, E width of a vector.
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.contract.task import Float, Rows
from worker.solvers import semantic
from worker.solvers.folds import stratified_group_holdout
from worker.solvers.semantic import Images

NUM_FOLDS = 5
HOLDOUT = 0.2
NUM_PENALTIES = 41
Double = NDArray[np.float64]


class Strengths(NamedTuple):
    """What a fit depends on; devise has no `lam`."""

    gamma: float = 1.0
    lam: float = 1.0


@dataclass(frozen=True)
class Fold:
    """Images of classes that are left out, images of the others that are held out, and what is left to learn from.

    Shape:
        out_K: [K], which classes are left out
        left: [M], held: [H], learn: [L], rows
    """

    out_K: NDArray[np.bool_]
    left: Rows
    held: Rows
    learn: Rows


@dataclass(frozen=True)
class Told:
    """A fold's images to learn from, decomposed, and its left-out and held-out ones in the same directions.

    Shape:
        asked_NR: [M + H, R]
        vectors_KE: of the classes that stay
    """

    images: Images
    asked_NR: Double
    vectors_KE: Float


@dataclass(frozen=True)
class Judged:
    """One approach on the class-disjoint folds: class-mean accuracies, averaged over the folds.

    Args:
        approach: eszsl, devise, or one from text alone.
        strengths: chosen by `accuracy`.
        accuracy: of left-out classes among left-out classes.
        penalty: that scores of seen classes are lowered by, chosen by `harmonic`.
        harmonic: of left-out and held-out images among all seen classes; None where nobody asked.
    """

    approach: str
    strengths: Strengths | None
    accuracy: float
    penalty: float = 0.0
    harmonic: float | None = None

    @property
    def value(self) -> float:
        """What approaches are compared by."""
        return self.accuracy if self.harmonic is None else self.harmonic


def solve(approach: str, images: Images, vectors_KE: Float, strengths: Strengths) -> Double:
    """The map of one approach, in the directions of the images [R, E]."""
    if approach == "devise":
        return semantic.devise(images, vectors_KE, strengths.gamma)
    return semantic.eszsl(images, vectors_KE, *strengths)


def cut(labels_P: Rows, groups_P: Rows, num_classes: int, seed: int) -> list[Fold]:
    """Classes in at most NUM_FOLDS parts of at least two; none where there are fewer than four classes."""
    present = np.random.default_rng(seed).permutation(np.unique(labels_P))
    folds = []
    for part in np.array_split(present, min(NUM_FOLDS, len(present) // 2)) if len(present) >= 4 else []:
        out_K = np.isin(np.arange(num_classes), part)
        rest = np.flatnonzero(~out_K[labels_P])
        held = stratified_group_holdout(labels_P[rest], groups_P[rest], HOLDOUT, seed)
        folds.append(Fold(out_K, np.flatnonzero(out_K[labels_P]), rest[held], rest[~held]))
    return folds


def tell(unit_PD: Double, labels_P: Rows, vectors_KE: Float, fold: Fold) -> Told:
    """What every approach needs of a fold, computed once."""
    inside = np.flatnonzero(~fold.out_K)
    images = semantic.decompose(unit_PD[fold.learn], np.searchsorted(inside, labels_P[fold.learn]), len(inside))
    return Told(images, unit_PD[np.concatenate([fold.left, fold.held])] @ images.basis_DR, vectors_KE[inside])


def judge(approach: str, told: list[Told], labels_P: Rows, vectors_KE: Float, folds: list[Fold], mixed: bool) -> Judged:
    """Strengths by the accuracy on left-out classes, then the penalty at these strengths."""

    def scores(one: Told, strengths: Strengths) -> Double:
        return np.asarray(one.asked_NR @ (solve(approach, one.images, one.vectors_KE, strengths) @ vectors_KE.T))

    lams = semantic.STRENGTHS if approach == "eszsl" else (1.0,)
    grid = [Strengths(*pair) for pair in product(semantic.STRENGTHS, lams)]
    pairs = list(zip(told, folds, strict=True))
    accuracy_G = [
        float(np.mean([_left_out_accuracy(scores(one, strengths), labels_P, fold) for one, fold in pairs]))
        for strengths in grid
    ]
    best = int(np.argmax(accuracy_G))
    penalty, harmonic = stacking([scores(one, grid[best]) for one in told], labels_P, folds) if mixed else (0.0, None)
    return Judged(approach, grid[best], accuracy_G[best], penalty, harmonic)


def judge_text(logits_PK: Double, labels_P: Rows, folds: list[Fold], mixed: bool) -> Judged:
    """Text alone on the same folds: it has seen no class, so there is nothing to choose and nothing to lower."""
    scores = [logits_PK[np.concatenate([fold.left, fold.held])] for fold in folds]
    accuracy = np.mean([_left_out_accuracy(one, labels_P, fold) for one, fold in zip(scores, folds, strict=True)])
    harmonic = float(
        np.mean([_harmonic(*one, 0.0) for one in zip(scores, _labels(labels_P, folds), folds, strict=True)])
    )
    return Judged("combined", None, float(accuracy), 0.0, harmonic if mixed else None)


def stacking(scores: list[Double], labels_P: Rows, folds: list[Fold]) -> tuple[float, float]:
    """The penalty with the best harmonic mean over the folds, and that mean.

    Calibrated stacking, Chao et al., arXiv 1605.04253, equation 3; chosen by the harmonic mean as in arXiv 1809.10120.

    Args:
        scores: per fold, of its left-out and then of its held-out images [M + H, K].
        labels_P: of all images.
        folds: as `class_folds` gives them.
    """
    # Where an image changes sides; between two of these nothing changes.
    sides = np.concatenate([
        one[:, ~fold.out_K].max(1) - one[:, fold.out_K].max(1) for one, fold in zip(scores, folds, strict=True)
    ])  # fmt: skip
    penalties = np.quantile(sides, np.linspace(0, 1, NUM_PENALTIES)).clip(0)
    rows = list(zip(scores, _labels(labels_P, folds), folds, strict=True))
    means = [float(np.mean([_harmonic(*row, penalty) for row in rows])) for penalty in penalties]
    best = int(np.argmax(means))
    return float(penalties[best]), means[best]


def class_mean(correct_N: NDArray[np.bool_], labels_N: Rows) -> float:
    """Accuracy as the mean over classes."""
    return float(np.mean([correct_N[labels_N == label].mean() for label in np.unique(labels_N)]))


def _left_out_accuracy(scores_NK: Double, labels_P: Rows, fold: Fold) -> float:
    """Of left-out images among left-out classes; theirs are the first rows."""
    labels_M = labels_P[fold.left]
    among_MK = np.where(fold.out_K, scores_NK[: len(labels_M)], -np.inf)
    return class_mean(among_MK.argmax(1) == labels_M, labels_M)


def _labels(labels_P: Rows, folds: list[Fold]) -> list[Rows]:
    return [labels_P[np.concatenate([fold.left, fold.held])] for fold in folds]


def _harmonic(scores_NK: Double, labels_N: Rows, fold: Fold, penalty: float) -> float:
    """Harmonic mean of the class-mean accuracies of left-out and of held-out images among all classes."""
    correct_N = (scores_NK - penalty * ~fold.out_K).argmax(1) == labels_N
    split = len(fold.left)
    parts = [class_mean(correct_N[:split], labels_N[:split])]
    parts += [class_mean(correct_N[split:], labels_N[split:])] if len(fold.held) else []
    return float(len(parts) / sum(1 / part for part in parts)) if min(parts) > 0 else 0.0
