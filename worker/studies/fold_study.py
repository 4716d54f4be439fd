"""A recipe over repeated stratified group folds of a dataset's training and validation items; the test split stays out.

Each fold is a whole transfer: choices inside a recipe (strength, epoch, backbone) are made again on the other folds
alone, so what is averaged is the score of the procedure, not of one lucky choice. Torch is loaded where a recipe needs
it. A finished fold is kept: an attempt that takes over goes on with the next one.

Shape legend: P items of the pool, J results.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import recipes
from app.errors import JobFailure
from app.recipes import Recipe
from worker import transfer
from worker.attempt.context import RunContext
from worker.by_recipe import METHODS
from worker.contract.task import Rows, Task
from worker.evaluate.versions import WORDS
from worker.scores import metrics
from worker.scores.resampled import ONE_SEED, corrected, over_seeds
from worker.solvers.folds import stratified_group_folds
from worker.studies.finished import Finished
from worker.studies.fold_reporter import FoldReporter

SCORES = ("accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Fold:
    """One fold of one repeat: rows that are left out, and all others of the pool."""

    repeat: int
    number: int
    out: Rows
    rest: Rows


def run(context: RunContext) -> dict[str, Any]:
    """Carries the recipe out once for each fold of each repeat, and a second one beside it where it was asked for.

    Returns:
        `result` and `metrics`.

    Raises:
        JobFailure: dataset_invalid, fewer pictures than folds; stopped, before a fold was finished; what recipes raise.
    """
    document, inputs, reporter = context.document, context.document.inputs, context.reporter
    wanted = [recipes.parse(document.recipe or {})]
    if inputs["against"] is not None:
        wanted.append(recipes.parse(inputs["against"]))
    reporter.progress(0.01, "load")
    task = transfer.make_task(context, transfer.load(context, document.dataset))
    folds = list(_folds(task, inputs["folds"], inputs["repeats"]))
    finished = Finished(context, "folds")
    rows: list[dict[str, Any]] = []
    for place, fold in enumerate(folds):
        name = f"{fold.repeat:03d}-{fold.number:03d}"
        known = finished.get(name)
        if known is not None:
            rows.append(known)
            continue
        reporter.check_yield()
        scores = []
        for side, recipe in enumerate(wanted):
            if reporter.stop_requested:
                break
            step = place * len(wanted) + side
            ends = (0.02 + 0.95 * one / (len(folds) * len(wanted)) for one in (step, step + 1))
            scores.append(_score(task, recipe, fold, side, *ends))
        # What was under way when the job was asked to stop may have ended early: it is not kept.
        if reporter.stop_requested:
            break
        rows.append(_row(fold, scores))
        finished.add(name, rows[-1])
        reporter.metric(
            f"repeat {fold.repeat + 1}, fold {fold.number + 1}: accuracy {scores[0]['accuracy']:.3f}"
            + (f", against {scores[1]['accuracy']:.3f}" if len(scores) > 1 else ""),
            **{name: scores[0][name] for name in SCORES},
        )
    if not rows:
        raise JobFailure("stopped", "expected at least one finished fold; found none; ask again and wait for it")
    return _result(task, wanted, rows, len(folds))


def _folds(task: Task, num_folds: int, repeats: int) -> Iterator[Fold]:
    labels_P, groups_P = task.labels_N[task.pool], task.groups_N[task.pool]
    num_groups = len(np.unique(groups_P))
    if num_groups <= num_folds:
        raise JobFailure(
            "dataset_invalid",
            f"expected more than {num_folds} different pictures outside the test split, for as many folds; found "
            f"{num_groups}; ask for fewer folds, or add images",
        )
    for repeat in range(repeats):
        fold_P = stratified_group_folds(labels_P, groups_P, num_folds, task.seed + repeat)
        for number in range(num_folds):
            yield Fold(repeat, number, task.pool[fold_P == number], task.pool[fold_P != number])


def _score(task: Task, recipe: Recipe, fold: Fold, side: int, begin: float, end: float) -> dict[str, float]:
    """Trains on the rest, scores what was left out. Files and checkpoints are the fold's own."""
    context, document = task.context, task.context.document
    name = f"repeat-{fold.repeat}-fold-{fold.number}-side-{side}"
    scratch = context.scratch / name
    scratch.mkdir()
    what = f"{recipe.model_dump()['method']}, repeat {fold.repeat + 1}, fold {fold.number + 1}"
    own = replace(
        context,
        scratch=scratch,
        reporter=FoldReporter(context.reporter, begin, end, what),
        document=document.model_copy(update={"id": f"{document.id}/{name}"}),
    )
    train, val = (rows[np.isin(rows, fold.rest)] for rows in (task.train, task.val))
    left = replace(
        task, context=own, pool=fold.rest, train=train, val=val, scored=fold.out, seed=task.seed + fold.repeat
    )
    candidate = METHODS[type(recipe)](recipe, left).candidate
    said = candidate.head.probabilities(candidate.features(fold.out))
    shutil.rmtree(scratch)
    scores = metrics.classification(said, task.labels_N[fold.out], task.class_names)
    return {score: float(getattr(scores, score)) for score in SCORES}


def _row(fold: Fold, scores: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "repeat": fold.repeat + 1,
        "fold": fold.number + 1,
        "num_train": len(fold.rest),
        "num_test": len(fold.out),
        **scores[0],
    }
    return row | ({"against": scores[1]} if len(scores) > 1 else {})


def _result(task: Task, wanted: list[Any], rows: list[dict[str, Any]], num_planned: int) -> dict[str, Any]:
    document = task.context.document
    assert document.dataset is not None
    share = float(np.mean([row["num_test"] / row["num_train"] for row in rows]))
    own = {name: corrected(_column(rows, name), share, (0.0, 1.0)) for name in SCORES}
    ours = {name: asdict(found) for name, found in own.items()}
    flat: dict[str, float | int | None] = {}
    for name, found in own.items():
        flat |= {f"{name}_mean": found.mean, f"{name}_std": found.std}
        flat |= {f"{name}_low": found.low, f"{name}_high": found.high}
    counts = np.bincount(task.labels_N[task.pool], minlength=task.num_classes)
    small = [task.class_names[label] for label in np.flatnonzero(counts < document.inputs["folds"])]
    result = {
        "mode": document.inputs["mode"],
        "dataset": {"id": document.dataset.id, "digest": document.dataset.digest},
        "backbone": task.backbone.name if len(task.backbones) == 1 else "auto",
        "recipe": wanted[0].model_dump(mode="json"),
        "num_items": len(task.pool),
        "num_folds": len(rows),
        "num_folds_planned": num_planned,
        "ended": "all folds" if len(rows) == num_planned else "stopped",
        "metrics": ours,
        **_seeds(rows, document.inputs["folds"]),
        "rows": rows,
        "interval": "95 %, corrected resampled t (Nadeau and Bengio, 2003): plain t intervals of folds are too narrow",
        "small_classes": {
            "labels": small,
            "what": "classes with fewer items than folds: some folds train or test without them",
        },
        "against": None,
        "comparison": None,
    }
    if len(wanted) > 1:
        result |= _against(rows, share, wanted)
        flat |= {"difference_mean": result["comparison"]["accuracy"]["mean"]}
    return {"result": result, "metrics": flat}


def _seeds(rows: list[dict[str, Any]], num_folds: int) -> dict[str, Any]:
    """How far whole repeats, each with folds and trainings of a seed of its own, differ from each other.

    The interval is wider: it is of other images, too.
    """
    repeats = [[row for row in rows if row["repeat"] == repeat] for repeat in sorted({row["repeat"] for row in rows})]
    done = [part for part in repeats if len(part) == num_folds]
    what = "mean over the folds of each repeat that is finished"
    found = {name: over_seeds([float(_column(part, name).mean()) for part in done], what) for name in SCORES}
    told = {name: asdict(one) for name, one in found.items() if one}
    return {"seed_deviation": told or None, "seed_deviation_skipped": None if told else f"repeats: {ONE_SEED}"}


def _against(rows: list[dict[str, Any]], share: float, wanted: list[Any]) -> dict[str, Any]:
    """The second recipe, and the paired differences fold by fold."""
    theirs = {name: corrected(np.array([row["against"][name] for row in rows]), share, (0.0, 1.0)) for name in SCORES}
    apart = {
        name: corrected(_column(rows, name) - np.array([row["against"][name] for row in rows]), share, (-1.0, 1.0))
        for name in SCORES
    }
    found = apart["accuracy"]
    word = "none"
    if found.low is not None and found.high is not None:
        word = "positive" if found.low > 0 else "negative" if found.high < 0 else "none"
    methods = [one.method for one in wanted]
    first, second = methods if methods[0] != methods[1] else (f"the first {methods[0]}", f"the second {methods[1]}")
    lead = {
        "positive": f"{first} is better than {second}",
        "negative": f"{first} is worse than {second}",
        "none": f"No evidence that {first} and {second} differ",
    }[word]
    bounds = (
        f"95 % interval {found.low:+.3f} to {found.high:+.3f}"
        if found.low is not None and found.high is not None
        else f"no interval: {found.reason}"
    )
    told = f"{lead}: accuracy differs by {found.mean:+.3f} ({bounds}) over {len(rows)} folds."
    return {
        "against": {
            "recipe": wanted[1].model_dump(mode="json"),
            "metrics": {name: asdict(one) for name, one in theirs.items()},
        },
        "comparison": {
            **{name: asdict(one) for name, one in apart.items()},
            "verdict": WORDS[word],
            "sentence": told,
        },
    }


def _column(rows: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows])
