"""Zero-shot with images of other classes: ESZSL and DeViSE, chosen by leaving whole classes out. No torch.

The choice between them, and with text alone, is made in `worker.evaluate.class_folds`.

Shape legend: P images of the pool, D features, K seen classes, C wanted classes, E width of a vector.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import unit
from app.recipes import ZeroShot
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.prepared import Prepared
from worker.backbones.text import TextEncoder
from worker.contract.candidate import Head
from worker.contract.heads import CosineHead
from worker.contract.outcome import Decision
from worker.contract.task import Float, Task
from worker.evaluate import class_folds
from worker.evaluate.class_folds import Judged, Strengths
from worker.prepare.centre import Centre
from worker.solvers import semantic


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
        vectors_KE = np.array([asked[name].direction for name in names], np.float32)
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
    folds = class_folds.cut(labels_P, seen.groups_P[kept], len(seen.names), task.seed)
    tried: list[Judged] = []
    if folds and from_text is not None:
        tried.append(class_folds.judge_text(from_text.logits(seen.features_PD[kept]), labels_P, folds, mixed))
    names = ("eszsl", "devise") if recipe.approach == "auto" else (recipe.approach,)
    if folds:
        told = [class_folds.tell(unit_PD, labels_P, seen.vectors_KE, fold) for fold in folds]
        tried += [class_folds.judge(name, told, labels_P, seen.vectors_KE, folds, mixed) for name in names]
        # The first of equals is the simplest: text alone.
        best = max(tried, key=lambda one: one.value)
    else:
        best = Judged("combined" if from_text else names[0], None if from_text else Strengths(), float("nan"))
    details: dict[str, Any] = {
        "chosen_by": f"{best.approach}: of {len(tried)} it did best on {len(folds)} folds of left-out classes"
        if folds
        else "default: too few seen classes to leave some out",
        "decisions": [asdict(_decision(one, one is best)) for one in tried],
        "tried": [_told(one) for one in tried],
        "seen": [one.name for one, seen in zip(recipe.classes, seen_C, strict=True) if seen],
        "unseen": [one.name for one, seen in zip(recipe.classes, seen_C, strict=True) if not seen],
        "penalty": best.penalty,
    }
    if best.strengths is None:
        return Fit(best.approach, None, details)
    images = semantic.decompose(unit_PD, labels_P, len(seen.names))
    solved_RE = class_folds.solve(best.approach, images, seen.vectors_KE, best.strengths)
    weight_CD = vectors_CE @ (images.basis_DR @ solved_RE).T
    bias_C = np.where(seen_C & mixed, -best.penalty, 0.0)
    scale = semantic.spread(unit_PD @ weight_CD.T)
    head = CosineHead(weight_CD.astype(np.float32), bias_C.astype(np.float32), middle.mean_D, scale or 1.0)
    return Fit(best.approach, head, details)


def _decision(one: Judged, is_best: bool) -> Decision:
    shown = f"{one.accuracy:.3f} of left-out classes among themselves"
    both = "" if one.harmonic is None else f", {one.harmonic:.3f} harmonic mean with the held-out seen ones"
    caution = ", optimistic: strengths were chosen on these folds" if one.strengths is not None else ""
    reason = f"{one.approach}: {shown}{both}{caution}"
    return Decision(one.approach, "served" if is_best else "dropped", reason, score=one.value)


def _told(one: Judged) -> dict[str, Any]:
    """A row of the report; devise has no lambda."""
    strengths = None if one.strengths is None else one.strengths._asdict()
    if strengths and one.approach == "devise":
        del strengths["lam"]
    return {**asdict(one), "strengths": strengths}
