"""The transfer job, told in order: load -> features and train -> evaluate -> assemble -> verify -> publish."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from app import recipes
from app.artifact import spec as specs
from app.artifact.precisions import SECOND
from app.errors import JobFailure
from app.recipes import Adapt, Auto, FewShot, FineTune, Recipe, ZeroShot
from worker.attempt.context import RunContext
from worker.attempt.document import DatasetDocument
from worker.by_recipe import METHODS
from worker.contract.outcome import Outcome
from worker.contract.task import Domain, Task
from worker.data import labels
from worker.data.samples import Index, empty_index, load_index
from worker.domains import two_domains
from worker.evaluate import supplement
from worker.evaluate.sections import Evaluation
from worker.prepare import sources
from worker.publication import assemble, second_graph
from worker.reports import adaptation, lineage, reasons, report, unseen
from worker.reports.foresight import Foresight


def run(context: RunContext) -> dict[str, Any]:
    """Carries the job's recipe out.

    Returns:
        what `services.outcomes` writes: bundle prefix, spec, metrics, report.

    Raises:
        JobFailure: what the owner of the job can understand.
    """
    document, reporter = context.document, context.reporter
    recipe = recipes.parse(document.recipe or {})
    reporter.progress(0.01, "load")
    task, judge = plan(context, recipe, full=isinstance(recipe, Auto | FineTune))
    outcome = METHODS[type(recipe)](recipe, task)
    task = outcome.excerpt.of(task) if outcome.excerpt else task
    reporter.check_yield()
    reporter.progress(0.85, "evaluate")
    evaluation = judge(outcome)
    served = evaluation.served or outcome.candidate
    seen, unknown = lineage.teachers(task, served)
    evaluation = lineage.flagged(task, evaluation, lineage.trace(task, seen, unknown, evaluation))
    for flag in evaluation.report["flags"]:
        reporter.log(flag["message"], "warning", code=flag["code"])
    wanted = [precision for precision in SECOND if document.inputs.get(precision)]
    judged = second_graph.judge(task, served, wanted)
    told: dict[str, Any] = {precision: one.report for precision, one in judged.items()}
    found = evaluation.report
    unsaid = found["not_computed"] | reasons.standing(found)
    evaluation = replace(
        evaluation, report={**found, "not_computed": unsaid, **told, **supplement.follow_up(task, found)}
    )
    reporter.progress(0.95, "assemble")
    written, parity = assemble.bundle(task, served, evaluation, seen, judged)
    reporter.log(
        f"published graph agrees with training within {parity.max_abs:.2e} on {parity.num_samples} images",
        **asdict(parity),
    )
    reporter.progress(0.98, "publish")
    assemble.store(context, served, written)
    _announce(context, served.name, evaluation)
    return {
        "prefix": document.bundle_prefix,
        "spec": specs.document(written),
        "metrics": evaluation.metrics,
        "report": evaluation.report,
    }


def plan(context: RunContext, recipe: Recipe, *, full: bool) -> tuple[Task, Callable[[Outcome], Evaluation]]:
    """What the recipe works on, and how its outcome is judged: there may be two datasets, or none.

    Args:
        context: of the job.
        recipe: of the job.
        full: whether the baseline from scratch and the learning curve belong to the judgement.
    """
    document = context.document
    if isinstance(recipe, Adapt):
        source, target = load(context, document.datasets.get("source")), load(context, document.dataset)
        task, truth = two_domains.make_task(context, recipe, source, target)
        return task, lambda outcome: adaptation.evaluate(task, outcome, truth)
    if isinstance(recipe, ZeroShot):
        index = load(context, document.dataset) if document.dataset else empty_index()
        task = make_task(context, index, tuple(one.name for one in recipe.classes))
        return task, lambda outcome: unseen.evaluate(task, outcome.candidate, index.rows_of("test"))
    if isinstance(recipe, Auto) and recipe.source is not None:
        return _two_domains(context, Adapt(source=recipe.source), full=full)
    index = load(context, document.dataset)
    test = index.rows_of("test")
    foresight = Foresight(len(test), advise=full, unit=isinstance(recipe, FewShot))
    task = replace(make_task(context, index), unlabelled=_unlabelled(context), foresee=foresight)

    def judge(outcome: Outcome) -> Evaluation:
        part, made = outcome.excerpt, foresight.of(outcome.candidate)
        learned, scored = (part.of(task), part.scored) if part else (task, test)
        return report.evaluate(learned, outcome, scored, compare=full, made=made)

    return task, judge


def _two_domains(context: RunContext, recipe: Adapt, *, full: bool) -> tuple[Task, Callable[[Outcome], Evaluation]]:
    """A source beside the dataset, whose labels are learned from where each class has one, and else only score."""
    document = context.document
    source, target = load(context, document.datasets.get("source")), load(context, document.dataset)
    recipe = recipe.model_copy(update={"target_labels": two_domains.is_labelled(source, target)})
    task, truth = two_domains.make_task(context, recipe, source, target)
    task = replace(task, unlabelled=_unlabelled(context))
    if not recipe.target_labels:

        def score(outcome: Outcome) -> Evaluation:
            part = outcome.excerpt
            if part is None:
                return adaptation.evaluate(task, outcome, truth)
            seen = replace(truth, scored=np.intersect1d(truth.scored, part.scored))
            return adaptation.evaluate(part.of(task), outcome, seen)

        return task, score
    # Of the dataset's own labels: what a source adds to them is what the report then tells.
    foresight = Foresight(len(truth.scored), advise=full, unit=False)
    known, task = replace(task, labels_N=truth.labels_N), replace(task, foresee=foresight, scored=truth.scored)

    def judge(outcome: Outcome) -> Evaluation:
        part, made = outcome.excerpt, foresight.of(outcome.candidate)
        learned = part.of(known) if part else known
        scored = np.intersect1d(truth.scored, part.scored) if part else truth.scored
        return report.evaluate(learned, outcome, scored, compare=full, made=made)

    return task, judge


def _unlabelled(context: RunContext) -> Domain | None:
    """More images of the job; their labels, if there are any, do not come along."""
    if "unlabelled" not in context.document.datasets:
        return None
    index = load(context, context.document.datasets["unlabelled"])
    bare = replace(index, columns=(labels.unlabelled(len(index)),))
    return Domain(bare, np.full(len(index), -1, np.int64), np.arange(len(index)))


def load(context: RunContext, dataset: DatasetDocument | None) -> Index:
    """The index of one of the job's datasets.

    Raises:
        JobFailure: dataset_invalid, it was deleted.
    """
    if dataset is None:
        raise JobFailure("dataset_invalid", "expected a dataset; found that it was deleted; upload it again")
    folder = context.scratch / dataset.id
    if not folder.exists():
        folder.mkdir()
        for name in ("index.parquet", "dataset.json"):
            (folder / name).symlink_to(context.storage.fetch(f"{dataset.prefix}/{name}"))
    return load_index(folder, dataset.prefix)


def make_task(context: RunContext, index: Index, classes: tuple[str, ...] | None = None) -> Task:
    """Rows by split, and the backbones that the job may use. The test split stays out.

    Args:
        context: of the job.
        index: of its dataset.
        classes: of the model, where these are not the dataset's; what is labelled otherwise has no label here.
    """
    train, val = index.rows_of("train"), index.rows_of("val")
    labels_N = np.asarray(index.label, np.int64)
    if classes is not None:
        place = [classes.index(name) if name in classes else -1 for name in index.classes]
        labels_N = np.array([*place, -1], np.int64)[labels_N]
    train, val = (rows[labels_N[rows] >= 0] for rows in (train, val))
    backbones = sources.open_backbones(context)
    return Task(
        context=context,
        index=index,
        backbone=backbones[0],
        backbones=backbones,
        labels_N=labels_N,
        pool=np.sort(np.concatenate([train, val])),
        train=train,
        val=val,
        num_classes=len(index.classes if classes is None else classes),
        class_names=index.classes if classes is None else classes,
        seed=context.document.seed,
    )


def _announce(context: RunContext, name: str, evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    if metrics.get("test_accuracy") is None:
        context.reporter.log(f"{name}: no labelled image of its classes to score it on")
    else:
        name = (
            f"{name}: test accuracy {metrics['test_accuracy']:.3f} "
            f"({metrics['test_accuracy_low']:.3f} to {metrics['test_accuracy_high']:.3f})"
        )
    context.reporter.metric(name, **{name: value for name, value in metrics.items() if value is not None})
