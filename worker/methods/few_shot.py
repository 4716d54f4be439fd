"""Few shots: nearest centroid, ridge or neighbours on frozen features, chosen without a validation set. No torch.

`few_shot_heads` has the three classifiers, cheapest first. Every picture with its copies is left out once, the
classifier of the rest is asked, and the cheapest within one standard error of the best is taken (many folds select
best, arXiv 2307.02732). The figures that are shown and compared with the frozen probe come from the probe's own folds
instead: a classifier that has seen all but one image must not be compared with one that has seen four fifths of them.

Shape legend: N images, P of the pool, D features, C classes, K neighbours.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.artifact import scores
from app.recipes import FewShot
from worker.backbones import features
from worker.contract.candidate import CHEAPEST, Candidate, Selection
from worker.contract.outcome import Decision, Outcome
from worker.contract.task import Float, Rows, Task
from worker.evaluate import selection
from worker.evaluate.selection import Choice
from worker.methods.few_shot_heads import FewShotHead, centroid, neighbours, ridge_head
from worker.methods.linear_probe import cross_validated, frozen_features
from worker.scores import calibration
from worker.scores.objective import ACCURACY, item_scores
from worker.solvers import left_out, ridge
from worker.solvers.folds import leaves_others
from worker.solvers.spectrum import eigenbasis
from worker.training.probing import draws

Ints = NDArray[np.int64]
Build = Callable[[Float, Ints], FewShotHead]

# Features of length 1 have N total energy: from hardly any shrinkage to class means only.
LAMBDAS = tuple(float(value) for value in np.logspace(-3, 3, 13))
NEIGHBOURS = (1, 3, 5, 10, 20)
# A head of more support images than this (100 MB at 1,280 features) is no small head any more.
MAX_SUPPORT = 20_000
# Up to here each picture is left out by fitting the rest again, its share of the centring mean included. With more, one
# picture moves that mean by less than a hundredth of its own distance, and closed forms leave it in the mean.
MAX_REFITS = 128
# Where temperature cannot be fitted: what is fitted on photos and emoji with 5 images per class is 0.05 to 0.13.
TEMPERATURE = 0.1
CHOSE = "which of three classifiers, and its strength, was chosen on these very items: a little may be that choice"


@dataclass(frozen=True)
class Tried:
    """One way, with its predictions for pictures that were left out.

    Shape:
        logits_PC: [P, C]
    """

    name: str
    build: Build
    logits_PC: NDArray[np.floating]


@dataclass(frozen=True)
class Fitted:
    """The chosen head and what is known of it."""

    head: FewShotHead
    selection: Selection
    fold_accuracy: tuple[float, ...]
    calibrated: bool
    choice: Choice
    details: dict[str, object]
    build: Build


def run(recipe: FewShot, task: Task) -> Outcome:
    """Features, three classifiers, the chosen one on everything but the test split."""
    candidate, choice = chosen(recipe, task)
    is_blind = candidate.selection.is_blind
    decisions = tuple(
        Decision(
            f"few_shot {reason.name}",
            "served" if reason.chosen else "tried",
            CHEAPEST if is_blind else reason.text,
            score=None if is_blind else reason.mean,
        )
        for reason in choice.reasons
    )
    for decision in decisions:
        task.context.reporter.log(decision.reason, step=decision.step, outcome=decision.outcome)
    return Outcome(candidate, decisions)


def chosen(recipe: FewShot, task: Task, num_draws: int = 1, objective: str = ACCURACY) -> tuple[Candidate, Choice]:
    """The chosen classifier, and how it was chosen.

    Args:
        recipe: has no settings.
        task: what is learned.
        num_draws: of the folds, for the predictions of the selection.
        objective: that it is chosen by.
    """
    began = time.monotonic()
    context = task.context
    stage = ("features", 0.05, 0.7)
    pool_PD, extraction = features.pooled(context, task.index, task.pool, task.backbone, stage, is_first=True)
    task.foresee(task, pool_PD)
    context.reporter.progress(0.75, "train")
    labels_P, groups_P = task.labels_N[task.pool], task.groups_N[task.pool]
    fitted = fit(pool_PD, labels_P, groups_P, task.pool, task.num_classes, task.seed, num_draws, objective)
    accuracy = float(np.mean(fitted.fold_accuracy)) if fitted.fold_accuracy else None
    told = cross_validated(fitted.fold_accuracy)
    context.reporter.metric(f"few_shot: {fitted.details['chosen']}, {told}", cv_accuracy=accuracy)
    candidate = Candidate(
        method=recipe.method,
        name=f"few_shot ({fitted.details['chosen']})",
        head=fitted.head,
        graph=task.backbone.graph,
        backbone=task.backbone,
        shared=True,
        selection=fitted.selection,
        features=lambda rows: frozen_features(task, rows),
        reference=lambda rows: frozen_features(task, rows),
        seconds=time.monotonic() - began,
        fold_accuracy=fitted.fold_accuracy,
        calibrated=fitted.calibrated,
        trained_params=fitted.head.num_params,
        details=fitted.details,
        extraction=extraction,
        refit=fitted.build,
    )
    return candidate, fitted.choice


def fit(
    feats_PD: Float,
    labels_P: Ints,
    groups_P: Ints,
    rows: Rows,
    num_classes: int,
    seed: int,
    num_draws: int = 1,
    objective: str = ACCURACY,
) -> Fitted:
    """The method itself, on arrays.

    Shape:
        feats_PD: [P, D]
        labels_P, groups_P: [P]

    Raises:
        JobFailure: dataset_invalid, a single picture cannot be left out of itself.
    """
    folds_P, *other_folds = draws(labels_P, groups_P, seed, num_draws)
    tried = candidates(feats_PD, labels_P, groups_P, num_classes, objective)
    costs = range(1, len(tried) + 1)
    choice = selection.one_standard_error(
        [
            selection.Candidate(way.name, cost, item_scores(way.logits_PC.argmax(1), labels_P, objective))
            for way, cost in zip(tried, costs, strict=True)
        ]
    )
    chosen = tried[choice.index]
    temperature, calibrated, num_items = fit_temperature(chosen.logits_PC, labels_P, groups_P)
    logits_PC = left_out.refitted(chosen.build, feats_PD, labels_P, folds_P, num_classes)
    again = tuple(left_out.refitted(chosen.build, feats_PD, labels_P, one_P, num_classes) for one_P in other_folds)
    right_P = logits_PC.argmax(1) == labels_P
    is_blind = not leaves_others(labels_P, groups_P)
    folds = np.unique(folds_P)
    fold_accuracy = () if is_blind else tuple(float(right_P[folds_P == fold].mean()) for fold in folds)
    details: dict[str, object] = {
        "chosen": chosen.name,
        "left_out": [{"name": reason.name, objective: None if is_blind else reason.mean} for reason in choice.reasons],
        "temperature_items": num_items,
    }
    return Fitted(
        replace(chosen.build(feats_PD, labels_P), temperature=temperature),
        Selection(rows, logits_PC, f"out of {len(folds)} folds", CHOSE, again, is_blind),
        fold_accuracy,
        calibrated,
        choice,
        details,
        chosen.build,
    )


def candidates(
    feats_PD: Float, labels_P: Ints, groups_P: Ints, num_classes: int, objective: str = ACCURACY
) -> list[Tried]:
    """The ways that there are for this many images, cheapest first, with predictions of left-out pictures.

    Lambda and the number of neighbours are chosen on the same left-out pictures, lambda by squared error: that flatters
    ridge and neighbours a little, which is one more reason to ask for a standard error before they are preferred.
    """
    mean_D = feats_PD.mean(axis=0, dtype=np.float64).astype(np.float32)
    unit_PD = scores.unit(feats_PD - mean_D).astype(np.float32)
    exact = len(np.unique(groups_P)) <= MAX_REFITS

    def tried(name: str, build: Build, closed_form: Callable[[], NDArray[np.floating]]) -> Tried:
        logits_PC = left_out.refitted(build, feats_PD, labels_P, groups_P, num_classes) if exact else closed_form()
        return Tried(name, build, logits_PC)

    strength = _best_lambda(unit_PD, labels_P, groups_P, num_classes)
    targets_PC = ridge.one_hot(labels_P, num_classes)
    found = [
        tried(
            "nearest centroid",
            lambda feats, labels: centroid(feats, labels, num_classes),
            lambda: left_out.centroid(unit_PD, labels_P, groups_P, num_classes),
        ),
        tried(
            f"ridge, lambda {strength:.3g}",
            lambda feats, labels: ridge_head(feats, labels, num_classes, strength),
            lambda: ridge.leave_groups_out(unit_PD, targets_PC, groups_P, strength),
        ),
    ]
    _, size_G = np.unique(groups_P, return_counts=True)
    possible = [k for k in NEIGHBOURS if k < len(labels_P) - size_G.max()]
    if possible and len(labels_P) <= MAX_SUPPORT:
        similarity_PK, labels_PK = left_out.nearest(unit_PD, labels_P, groups_P, possible[-1] + 1)
        voted = [scores.votes(similarity_PK[:, : k + 1], labels_PK, num_classes) for k in possible]
        place = int(np.argmax([item_scores(one_PC.argmax(1), labels_P, objective).mean() for one_PC in voted]))
        k = possible[place]
        found.append(
            tried(
                f"{k} nearest neighbour{'s' if k > 1 else ''}",
                lambda feats, labels: neighbours(feats, labels, num_classes, k),
                lambda: voted[place],
            )
        )
    return found


def fit_temperature(logits_PC: NDArray[np.floating], labels_P: Ints, groups_P: Ints) -> tuple[float, bool, int]:
    """Temperature from left-out logits of pictures whose class has another picture.

    Returns:
        temperature, whether it is calibrated, number of items. It is not with few items, nor where all of them are
        right by so far that any confidence fits.
    """
    pairs = np.unique(np.stack([groups_P, labels_P], 1), axis=0)
    known_P = np.bincount(pairs[:, 1], minlength=logits_PC.shape[1])[labels_P] > 1
    if known_P.sum() >= calibration.MIN_ITEMS:
        temperature = calibration.fit_temperature(logits_PC[known_P], labels_P[known_P])
        if calibration.MIN_TEMPERATURE < temperature < calibration.MAX_TEMPERATURE:
            return temperature, True, int(known_P.sum())
    return TEMPERATURE, False, int(known_P.sum())


def _best_lambda(unit_PD: Float, labels_P: Ints, groups_P: Ints, num_classes: int) -> float:
    targets_PC = ridge.one_hot(labels_P, num_classes)
    centred_PD = unit_PD - unit_PD.mean(axis=0, dtype=np.float64)
    basis = eigenbasis(centred_PD, np.float64)
    errors = [
        np.square(ridge.leave_groups_out(centred_PD, targets_PC, groups_P, value, basis=basis) - targets_PC).mean()
        for value in LAMBDAS
    ]
    return LAMBDAS[int(np.argmin(errors))]
