"""A finished transfer carried out again, and held against what it has published. It publishes nothing.

Without torch where the recipe needs none. Shape legend: N items, C classes.
"""

from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import recipes
from app.artifact import bundle, predicted
from app.artifact import spec as specs
from app.artifact.predicted import Predictions
from app.artifact.spec import Dataset, Spec
from app.errors import JobFailure, NotFound
from app.libraries import version
from app.serving.runtime import Runtime, Session
from worker import transfer
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument
from worker.attempt.gone import version_deleted
from worker.backbones import features
from worker.backbones.probes import probe_images
from worker.by_recipe import METHODS
from worker.contract.candidate import Candidate
from worker.contract.task import Recorded, Rows, Task
from worker.evaluate import sameness
from worker.evaluate.sections import Evaluation
from worker.methods.reference import FALLBACK_OFF
from worker.overlap import matches
from worker.reports import lineage

ITEMS = "the items that the version was scored on"
PROBES = "noise and patterns, since the version was scored on no item"
BUDGET = "the recipe has a time budget: what fits it depends on the machine and on what is cached"

Double = NDArray[np.float64]


def run(context: RunContext) -> dict[str, Any]:
    """Trains again with the same data, recipe and seed, and compares.

    Returns:
        `result` and `metrics`.

    Raises:
        JobFailure: version_deleted, and what the transfer itself raises.
    """
    document, reporter = context.document, context.reporter
    original = document.inputs["original"]
    described, known = _published(context, original)
    recipe = recipes.parse(document.recipe or {})
    # A network from scratch that took the transfer's place is trained again, in whatever time there is now.
    is_scratch = described.backbone.is_from_scratch
    task, judge = transfer.plan(context, recipe, full=is_scratch)
    task = replace(task, recorded=_recorded(context, task, described, known))
    candidate_of = METHODS[type(recipe)](recipe, task)
    if "fallback" not in (document.recipe or {}):
        # A job of before there was the choice has served its transfer.
        candidate_of = replace(candidate_of, stays=FALLBACK_OFF)
    reporter.check_yield()
    reporter.progress(0.85, "evaluate")
    evaluation = judge(candidate_of)
    candidate = evaluation.served or candidate_of.candidate
    reporter.progress(0.95, "compare")
    if set(described.labels) != set(task.class_names):
        raise JobFailure(
            "internal", f"expected the labels {list(described.labels)}; found {list(task.class_names)}; run a new job"
        )
    order = [task.class_names.index(label) for label in described.labels]
    if known.ids:
        before, now, what = *_same_items(known, evaluation, order), ITEMS
    else:
        before, now, what = *_probed(context, original, described, candidate, order), PROBES
    found = sameness.compare(before, now)
    rows = sameness.metric_rows(described.metrics, evaluation.metrics)
    word = sameness.verdict(found, rows)
    result = {
        "mode": document.inputs["mode"],
        "job": original["job"],
        "model": {"name": original["model"], "version": original["version"]},
        "verdict": word,
        "bounds": sameness.BOUNDS,
        "predictions": {**asdict(found), "what": what},
        "metrics": rows,
        "libraries": _libraries(described),
        "datasets": _datasets(context, described),
        "backbone": _backbone(described, candidate),
        "served": {"then": described.head, "now": candidate.head.kind, "what_now": candidate.name},
        "notes": [BUDGET] if _is_bounded(recipe) or recipe.method == "auto" or is_scratch else [],
    }
    reporter.metric(
        f"{word}: {found.share_equal:.1%} of {found.num_items} predictions equal, probabilities within "
        f"{found.max_difference:.2e}",
        **asdict(found),
    )
    return {"result": result, "metrics": asdict(found)}


def _published(context: RunContext, original: dict[str, Any]) -> tuple[Spec, Predictions]:
    try:
        described = specs.load(context.storage.fetch(f"{original['prefix']}/{bundle.SPEC}").read_bytes())
        return described, predicted.read(context.storage.fetch(f"{original['prefix']}/{bundle.PREDICTIONS}"))
    except NotFound as error:
        raise version_deleted(original, "reproduced", "nothing can be compared without it") from error


def _recorded(context: RunContext, task: Task, described: Spec, known: Predictions) -> Recorded | None:
    """The images that the version learned from and was scored on: where time once held a part, it is taken again.

    What this run has time for may be more, or less, and would be another job. None for a bundle that is older than
    such records.
    """
    document = context.document
    taught = lineage.of_version(context.storage, document.inputs["original"]["prefix"], described.files)
    if taught is None or document.dataset is None:
        return None
    rows = {one.id: one for one in taught if not one.backbone}
    own, source = rows.get(document.dataset.id), document.datasets.get("source")
    other = rows.get(source.id) if source and task.source else None
    scored = np.flatnonzero(np.isin(task.index.ids, np.array(known.ids, task.index.ids.dtype)))
    if own is None:
        pool = _looked_at(context, task, scored)
    else:
        pool = np.intersect1d(task.pool, matches.rows_of(task.index, own))
    return Recorded(pool, scored, matches.rows_of(task.source.index, other) if other and task.source else None)


def _looked_at(context: RunContext, task: Task, scored: Rows) -> Rows:
    """Of a dataset that chose a model and taught it nothing, which is not written down: what is not known to be left.

    Of one whose labels only score, whatever can be is predicted: what was not was not looked at either.
    """
    if (task.labels_N[task.pool] >= 0).any():
        return task.pool
    index = transfer.load(context, context.document.dataset)
    names = np.array([name in task.class_names for name in index.classes] + [False])
    wanted = np.flatnonzero(names[np.asarray(index.label, np.int64)])
    return np.setdiff1d(task.pool, np.setdiff1d(wanted if len(wanted) else task.pool, scored))


def _is_bounded(recipe: recipes.Recipe) -> bool:
    return getattr(recipe, "max_minutes", None) is not None


def _same_items(known: Predictions, evaluation: Evaluation, order: list[int]) -> tuple[Double, Double]:
    """Both models' probabilities, item by item, in the order of the published labels.

    Raises:
        JobFailure: internal, other items were scored: a dataset never changes, so this is no matter of the data.
    """
    place = {name: row for row, name in enumerate(evaluation.predictions.ids)}
    shared = [row for row, name in enumerate(known.ids) if name in place]
    if not len(shared) == len(place) == len(known.ids):
        raise JobFailure(
            "internal", f"expected the {len(known.ids)} items of before; found {len(place)}, not all of them the same"
        )
    rows = [place[known.ids[row]] for row in shared]
    found = evaluation.predictions.probabilities[rows][:, order]
    return known.probabilities[shared].astype(np.float64), found.astype(float)


def _probed(
    context: RunContext, original: dict[str, Any], described: Spec, candidate: Candidate, order: list[int]
) -> tuple[Double, Double]:
    images = probe_images(candidate.backbone.preprocess)
    network = described.files[bundle.BACKBONE].key or f"{original['prefix']}/{bundle.BACKBONE}"
    threads = context.settings.num_compute_threads
    head = Session(context.storage.fetch(f"{original['prefix']}/{bundle.HEAD}"), 1)
    before = Runtime(Session(context.storage.fetch(network), threads), head).run(images).probabilities
    now = candidate.head.probabilities(features.open_extractor(context, candidate.backbone)(images))
    return before.astype(np.float64), now[:, order].astype(np.float32).astype(np.float64)


def _libraries(described: Spec) -> list[dict[str, Any]]:
    return [
        {"name": name, "then": then, "now": (now := _version(name)), "same": then == now}
        for name, then in sorted(described.libraries.items())
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _datasets(context: RunContext, described: Spec) -> list[dict[str, Any]]:
    """Their digests then and now; they are immutable, so a difference means that something is damaged."""
    document = context.document
    pairs = ((described.dataset, document.dataset), (described.source, document.datasets.get("source")))
    return [_digests(then, now) for then, now in pairs if then is not None]


def _digests(then: Dataset, now: DatasetDocument | None) -> dict[str, Any]:
    found = now.digest if now else None
    return {"id": then.id, "digest_then": then.digest, "digest_now": found, "same": then.digest == found}


def _backbone(described: Spec, candidate: Candidate) -> dict[str, Any]:
    then, now = described.backbone, candidate.backbone
    return {
        "name_then": then.name,
        "name_now": now.name,
        "digest_then": then.digest,
        "digest_now": now.digest,
        "same": then.digest == now.digest,
    }
