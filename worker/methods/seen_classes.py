"""Zero-shot with images of other classes: ESZSL and DeViSE, chosen by leaving whole classes out. No torch.

Every choice (method, strengths, penalty) is made on class-disjoint folds: the images of a left-out class play the
unseen ones. Where wanted classes are also seen (generalised zero-shot), scores of seen classes are lowered by one
penalty, calibrated stacking (arXiv 1605.04253), chosen by the harmonic mean of seen and left-out accuracy
(arXiv 1809.10120); a fifth of the images of the classes that stay is held out for that.

Shape legend: P images of the pool, D features, K seen classes, C wanted classes, E width of a vector.
"""

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import unit
from app.recipes import ZeroShot
from worker import features
from worker.centre import Centre
from worker.features import Extraction
from worker.methods.contract import Float, Head, Rows, Task
from worker.methods.heads import CosineHead
from worker.prepared import Prepared
from worker.solvers import semantic
from worker.solvers.folds import stratified_group_holdout
from worker.solvers.semantic import Images
from worker.text import TextEncoder

NUM_FOLDS = 5
HOLDOUT = 0.2
NUM_PENALTIES = 41
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Images of the pool, by the classes of their dataset; label -1 where a class has no vector.

    Shape:
        features_PD: [P, D]
        labels_P: [P], 0 to K - 1
        groups_P: [P]
        vectors_KE: [K, E]
    """

    features_PD: Float
    labels_P: NDArray[np.int64]
    groups_P: NDArray[np.int64]
    names: tuple[str, ...]
    vectors_KE: Float
    extraction: Extraction

    @property
    def labelled(self) -> bool:
        """Whether a classifier can learn from it."""
        return len(np.unique(self.labels_P[self.labels_P >= 0])) > 1


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


@dataclass(frozen=True)
class Fit:
    """What was chosen; `head` is None where text alone did better than any images of other classes."""

    approach: str
    head: Head | None
    details: dict[str, Any]


def load(recipe: ZeroShot, task: Task, backbone: Prepared, encoder: TextEncoder) -> Seen | None:
    """Features of the job's dataset and vectors of its classes; None without a dataset."""
    index = task.index
    rows = np.sort(np.concatenate([index.rows_of("train"), index.rows_of("val")]))
    if not len(rows):
        return None
    features_PD, extraction = features.pooled(task.context, index, rows, backbone, ("features", 0.05, 0.6))
    labels_P = np.asarray(index.label, np.int64)[rows]
    asked = {one.name: one for one in recipe.classes}
    if recipe.classes[0].attributes is None:
        names = index.classes
        descriptions = [(asked[name].description or "") if name in asked else "" for name in names]
        vectors_KE = encoder.classes(names, descriptions) if names else np.empty((0, 1), np.float32)
    else:
        names = tuple(name for name in index.classes if name in asked)
        place = np.array([names.index(name) if name in asked else -1 for name in index.classes] + [-1])
        labels_P = place[labels_P]
        vectors_KE = unit(np.array([asked[name].attributes for name in names])).astype(np.float32)
    return Seen(features_PD, labels_P, index.group[rows], names, vectors_KE, extraction)


def fit(recipe: ZeroShot, task: Task, seen: Seen, middle: Centre, vectors_CE: Float, from_text: Head | None) -> Fit:
    """Chooses on class-disjoint folds, and fits the choice on all images of seen classes.

    Args:
        recipe: what is wanted.
        task: the job's data.
        seen: images and vectors of the seen classes.
        middle: what features are centred by.
        vectors_CE: of the wanted classes.
        from_text: the head that text alone gives for the seen classes, to be compared; None where there is none.
    """
    kept = seen.labels_P >= 0
    unit_PD = unit(seen.features_PD[kept] - middle.mean_D)
    labels_P = seen.labels_P[kept]
    seen_C = np.isin([one.name for one in recipe.classes], seen.names)
    mixed = bool(seen_C.any()) and not bool(seen_C.all())
    folds = class_folds(labels_P, seen.groups_P[kept], len(seen.names), task.seed)
    tried: list[Judged] = []
    if folds and from_text is not None:
        tried.append(judge_text(from_text.logits(seen.features_PD[kept]), labels_P, folds, mixed))
    names = ("eszsl", "devise") if recipe.approach == "auto" else (recipe.approach,)
    if folds:
        told = [tell(unit_PD, labels_P, seen.vectors_KE, fold) for fold in folds]
        tried += [judge(name, told, labels_P, seen.vectors_KE, folds, mixed) for name in names]
        # The first of equals is the simplest: text alone.
        best = max(tried, key=lambda one: one.value)
    else:
        best = Judged("combined" if from_text else names[0], None if from_text else Strengths(), float("nan"))
    details: dict[str, Any] = {
        "chosen_by": f"{len(folds)} class-disjoint folds"
        if folds
        else "default: too few seen classes to leave some out",
        "tried": [asdict(one) for one in tried],
        "seen": [one.name for one, seen in zip(recipe.classes, seen_C, strict=True) if seen],
        "unseen": [one.name for one, seen in zip(recipe.classes, seen_C, strict=True) if not seen],
        "penalty": best.penalty,
    }
    if best.strengths is None:
        return Fit(best.approach, None, details)
    images = semantic.decompose(unit_PD, labels_P, len(seen.names))
    weight_CD = vectors_CE @ (images.basis_DR @ solve(best.approach, images, seen.vectors_KE, best.strengths)).T
    bias_C = np.where(seen_C & mixed, -best.penalty, 0.0)
    scale = semantic.spread(unit_PD @ weight_CD.T)
    head = CosineHead(weight_CD.astype(np.float32), bias_C.astype(np.float32), middle.mean_D, scale or 1.0)
    return Fit(best.approach, head, details)


def solve(approach: str, images: Images, vectors_KE: Float, strengths: Strengths) -> Double:
    """The map of one approach, in the directions of the images [R, E]."""
    if approach == "devise":
        return semantic.devise(images, vectors_KE, strengths.gamma)
    return semantic.eszsl(images, vectors_KE, *strengths)


def class_folds(labels_P: Rows, groups_P: Rows, num_classes: int, seed: int) -> list[Fold]:
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
