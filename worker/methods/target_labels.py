"""Source and a few labels of the target together: one probe over both, compared with either alone.

With one to three labels of each class a target's own labels are the surest help there is (arXiv 2304.00792). The
source's features are taken as they are or z-scored to the target; a labelled target image counts once, or as much as
several; which, is chosen on folds of the target's labelled training images, and both single domains are scored on the
same folds. Weights are copies of rows: any solver may be used, and none has to know. All cost the same to serve, so the
best mean is served, the source alone where that is within one standard error of it. That the choice between them was
made on those folds flatters the winner a little; the test split has no part in it.

Statistics of a few images describe these alone, so what is left out has no part in the z-score either. Six classes of
emoji (144 images), Google's to Twitter's, means of 5 draws of the labels, the source alone 0.667 on 144 new images:
with 1, 2, 3 and 5 labels per class 0.667, 0.694, 0.733 and 0.797, no draw below the source. With statistics of all and
the best mean, whatever the error, it was 0.537, 0.613, 0.744 and 0.760, and 0.20 below the source in the worst draw.

Shape legend: N source items, M labelled target items, D features, C classes, F folds.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import JobFailure
from app.recipes import Adapt
from worker.alignments import unpaired
from worker.backbones.extraction import Extraction
from worker.contract.adaptation import Adaptation, Tried
from worker.contract.candidate import DATASET, SOURCE, Candidate, Selection
from worker.contract.heads import LinearHead
from worker.contract.outcome import Decision, Outcome
from worker.contract.task import Float, Task
from worker.domains.distances import MIN_ITEMS, distances
from worker.domains.fits import SOURCE_ONLY, Data
from worker.domains.spaces import shown
from worker.evaluate import selection
from worker.methods.linear_probe import frozen_features
from worker.methods.reference import fit_seconds, starts
from worker.scores.intervals import clopper_pearson
from worker.solvers import left_out, logistic
from worker.solvers.folds import stratified_group_folds
from worker.training import probing
from worker.training.probing import num_folds

TARGET_ONLY, JOINT = "target_only", "source_and_target"
# How much one labelled target image counts, against one of the source.
WEIGHTS = (1, 4, 16)
# Weights are copies of rows. A target that has so many labels needs no weight, and memory stays where it is.
MAX_ROWS = 20_000
JOINT_TOLERANCE = 1e-4


class Decide(Protocol):
    """Writes a decision down."""

    def __call__(self, step: str, outcome: str, reason: str, **numbers: float | None) -> None:
        """As `outcome.Decision`."""


@dataclass(frozen=True)
class _Way:
    """One way to learn, as a function of target items to learn from.

    Args:
        name: for people.
        fit: target features [M, D] and labels [M] -> a head for target features; None learns from the source alone.
        num_rows: that it learns from, copies counted.
        learned_from: as of a `Candidate`.
    """

    name: str
    fit: Callable[[Float, NDArray[np.int64]], LinearHead] | None
    num_rows: int = 0
    learned_from: tuple[str, ...] = (SOURCE, DATASET)


def run(recipe: Adapt, task: Task, source_ND: Float, target_MD: Float, extraction: Extraction, began: float) -> Outcome:
    """Scores every way on the same folds of the target, serves the best.

    Raises:
        JobFailure: dataset_invalid, a class without a labelled image outside the target's test split.
    """
    decisions: list[Decision] = []

    def decide(step: str, outcome: str, reason: str, **numbers: float | None) -> None:
        decisions.append(Decision(step, outcome, reason, **numbers))
        task.context.reporter.log(f"{step}: {outcome}, {reason}", **asdict(decisions[-1]))

    end_seconds = 60 * recipe.max_minutes
    tried, source_accuracy = try_all(task, source_ND, target_MD, extraction, end_seconds, decide)
    labels_M = task.labels_N[task.pool]
    place = choose(np.stack([one.candidate.selection.logits.argmax(1) == labels_M for one in tried]))
    best = tried[place].candidate
    final = replace(best, seconds=time.monotonic() - began)
    why = f"{best.name}: the highest accuracy on the target's labelled images, out of fold, of {len(tried)} ways"
    if not place:
        why = (
            f"{best.name}: of {len(tried)} ways none did better on the target's labelled images, out of fold, by more "
        )
        why += "than one standard error"
    decide("served", "served", why)
    found = tuple(replace(one, candidate=final) if one.candidate is best else one for one in tried)
    drawn = shown(task, (source_ND, target_MD), None)
    adaptation = Adaptation(found[0].candidate, found, source_accuracy, domain(task, source_ND, target_MD), drawn)
    return Outcome(final, tuple(decisions), adaptation=adaptation)


def choose(right_WM: NDArray[np.bool_]) -> int:
    """The way with the best mean, or the first, the source alone, where that is within one standard error.

    Shape:
        right_WM: [ways, M], whether a labelled target image was named rightly
    """
    ways = [selection.Candidate(str(place), float(place > 0), right_M) for place, right_M in enumerate(right_WM)]
    return selection.one_standard_error(ways).index


def try_all(
    task: Task, source_ND: Float, target_MD: Float, extraction: Extraction, end_seconds: float, decide: Decide
) -> tuple[list[Tried], float]:
    """Every way on the same folds, the source alone first, until the job is asked to stop or the time is used up.

    Args:
        task: target and source.
        source_ND: features of the source's pool.
        target_MD: features of the target's pool.
        extraction: what it took to get them.
        end_seconds: since the attempt began; the first way is tried whatever the time is.
        decide: hears what was tried or skipped, and why.

    Returns:
        what was tried, and the accuracy of the source's probe on the source, out of fold.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]

    Raises:
        JobFailure: dataset_invalid, a class without a labelled image outside the target's test split.
    """
    assert task.source is not None
    began, reporter = time.monotonic(), task.context.reporter
    labels_M, groups_M = task.labels_N[task.pool], task.groups_N[task.pool]
    _check(task, labels_M)
    rows = task.source.pool
    labels_N, groups_N = task.source.labels_N[rows], task.source.index.group[rows]
    probe, _, folds, _ = probing.fit(source_ND, labels_N, groups_N, rows, task.num_classes, task.seed)
    data = Data(source_ND, labels_N, groups_N, target_MD, task.num_classes, task.seed)
    fold_M = stratified_group_folds(labels_M, groups_M, num_folds(groups_M), task.seed)
    tried: list[Tried] = []
    slowness = 1.0
    for way in _ways(data):
        expected = slowness * _forecast(way, data, int(fold_M.max()) + 2)
        left = end_seconds - reporter.elapsed_seconds
        if tried and (reporter.stop_requested or expected > left):
            reason = f"its forecast of {expected:.1f} s does not fit the {max(0.0, left):.1f} s that are left"
            reason = "the job was asked to stop" if reporter.stop_requested else reason
            decide(way.name, "skipped", reason, forecast_seconds=round(expected, 2))
            continue
        reporter.check_yield()
        starts(reporter, way.name, expected)
        started = time.monotonic()
        fit = way.fit or (lambda *_: probe)
        logits_MC = left_out.refitted(fit, target_MD, labels_M, fold_M, task.num_classes)
        right_M = logits_MC.argmax(1) == labels_M
        what = f"out of {fold_M.max() + 1} folds of the target's labelled images"
        candidate = Candidate(
            method="adapt",
            name=way.name,
            head=fit(target_MD, labels_M),
            graph=task.backbone.graph,
            backbone=task.backbone,
            shared=True,
            selection=Selection(task.pool, logits_MC, what),
            features=lambda rows: frozen_features(task, rows),
            reference=lambda rows: frozen_features(task, rows),
            seconds=time.monotonic() - began,
            fold_accuracy=tuple(float(right_M[fold_M == fold].mean()) for fold in np.unique(fold_M)),
            calibrated=False,
            trained_params=probe.num_params,
            details={"candidate": way.name},
            extraction=extraction,
            learned_from=way.learned_from,
        )
        tried.append(Tried(candidate, {"target_accuracy": float(right_M.mean())}))
        seconds = time.monotonic() - started
        if way.fit:
            slowness *= float(np.clip(seconds / expected, 0.2, 5.0))
        low, high = clopper_pearson(int(right_M.sum()), len(right_M))
        decide(
            way.name,
            "tried",
            f"{way.name}: accuracy {right_M.mean():.3f} ({low:.3f} to {high:.3f}) on {len(labels_M)} labelled target "
            "images, out of fold",
            score=float(right_M.mean()),
            low=low,
            high=high,
            seconds=round(seconds, 2),
            forecast_seconds=round(expected, 2),
        )
    return tried, float(np.mean(folds))


def _forecast(way: _Way, data: Data, num_fits: int) -> float:
    """Seconds of a way: its fits, one for each fold and one for all; the source's probe is fitted already."""
    return num_fits * fit_seconds(way.num_rows, data.target_MD.shape[1], data.num_classes) if way.fit else 0.1


def domain(task: Task, source_ND: Float, target_MD: Float) -> dict[str, Any]:
    """How far the two lie apart, JSON-ready.

    Shape:
        source_ND: [N, D]
        target_MD: [M, D]
    """
    return {
        "before": asdict(distances(source_ND, target_MD, task.seed)) if len(target_MD) >= MIN_ITEMS else None,
        "after": None,
        "num_source": len(source_ND),
        "num_target": len(target_MD),
        "validator": "folds of the target's labelled images",
    }


def _check(task: Task, labels_M: NDArray[np.int64]) -> None:
    missing = np.setdiff1d(np.arange(task.num_classes), labels_M)
    if len(missing):
        names = ", ".join(task.class_names[place] for place in missing[:5])
        raise JobFailure(
            "dataset_invalid",
            f"expected labelled target images of every class outside the test split; found none of {names}; "
            "label some, or leave target_labels off",
        )


def _ways(data: Data) -> list[_Way]:
    """The source alone first: `choose` knows it by its place."""
    strength = _strength(data)
    ways = [_Way(SOURCE_ONLY, None, learned_from=(SOURCE,))]
    alone = partial(_joint, data.source_ND[:0], data.labels_N[:0], 1, strength, data.num_classes, False)
    ways.append(_Way(TARGET_ONLY, alone, len(data.target_MD), (DATASET,)))
    for name, z_scored in (("", False), (", z-scored", True)):
        for weight in (one for one in WEIGHTS if one == 1 or one * len(data.target_MD) <= MAX_ROWS):
            fit = partial(_joint, data.source_ND, data.labels_N, weight, strength, data.num_classes, z_scored)
            num_rows = len(data.source_ND) + weight * len(data.target_MD)
            ways.append(_Way(f"{JOINT}{name}, target x {weight}", fit, num_rows))
    return ways


def _strength(data: Data) -> float:
    """C of the logistic regressions, by cross-validation on the source: the target has too few labels to choose by."""
    mean_D, scale_D = logistic.standardise(data.source_ND)
    standard_ND = ((data.source_ND - mean_D) / scale_D).astype(np.float32)
    fold_N = stratified_group_folds(data.labels_N, data.groups_N, num_folds(data.groups_N), data.seed)
    found = logistic.cross_validate(
        standard_ND, data.labels_N, fold_N, data.num_classes, max_iterations=probing.CV_ITERATIONS
    )
    return found.strengths[found.best_index]


def _joint(
    source_ND: Float,
    labels_N: NDArray[np.int64],
    weight: int,
    strength: float,
    num_classes: int,
    z_scored: bool,
    target_MD: Float,
    labels_M: NDArray[np.int64],
) -> LinearHead:
    """Logistic regression on both, every target row `weight` times; standardised by all rows together.

    With `z_scored` the source's features first get mean and scale of these target rows.

    Shape:
        source_ND: [N, D]
        labels_N: [N]
        target_MD: [M, D]
        labels_M: [M]
    """
    if z_scored:
        source_ND = np.asarray(unpaired.z_score(source_ND, target_MD).apply(source_ND), np.float32)
    feats = np.concatenate([source_ND, *[target_MD] * weight])
    labels = np.concatenate([labels_N, *[labels_M] * weight])
    mean_D, scale_D = logistic.standardise(feats)
    standard = ((feats - mean_D) / scale_D).astype(np.float32)
    linear = logistic.fit(standard, labels, num_classes, strength, tolerance=JOINT_TOLERANCE)
    return LinearHead(
        linear.weight_CD.astype(np.float32),
        linear.bias_C.astype(np.float32),
        mean_D.astype(np.float32),
        scale_D.astype(np.float32),
    )
