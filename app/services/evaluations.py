"""Evaluations: asked for, checked, answered by a job. What can be refused is refused before any work starts."""

from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import recipes, texts
from app.db.models import Dataset, Job, Model, ModelVersion
from app.db.studies import Evaluation
from app.errors import BadRequest, Conflict
from app.evaluations import FOLDED, FOLDS, REPRODUCE, VERSIONS, AnyEvaluation, Folds, Versions
from app.services import backbones, datasets, jobs, models, served_versions, studies, transfers
from app.services.served_versions import TASK
from app.states import JobState


def create(session: Session, project: str, wish: AnyEvaluation, offline: bool) -> Evaluation:
    """Checks what is asked for, and makes the evaluation and its job.

    Raises:
        NotFound: a dataset, model, version, alias, domain or backbone is not there.
        Conflict: a dataset is not ready, an alignment does not fit, or a version and an alias were given.
        BadRequest: no labels where two versions or recipes are compared, none in common, a recipe that cannot leave a
            fold out, or weights that cannot be had.
    """
    jobs.keep_dataset(session, wish.dataset)
    dataset = datasets.ready(session, project, wish.dataset)
    _check_task(dataset)
    if isinstance(wish, Folds):
        _check_labels(dataset)
        return _folds(session, project, wish, offline)
    if wish.against is not None:
        _check_labels(dataset)
    return _versions(session, project, wish, dataset)


def reproduce(session: Session, project: str, job_id: str, offline: bool) -> Evaluation:
    """Makes the evaluation that carries a finished transfer out again and compares.

    Raises:
        NotFound: no such job, or code unknown_backbone.
        Conflict: code not_reproducible: no succeeded transfer, or its version or a dataset of it was deleted.
        BadRequest: code weights_unavailable.
    """
    job = jobs.get(session, project, job_id)
    beside = jobs.datasets(session, job_id)
    for dataset_id in filter(None, (job.dataset_id, *(row.id for row in beside.values()))):
        jobs.keep_dataset(session, dataset_id)
    session.refresh(job)
    if job.kind != "transfer" or job.state != JobState.SUCCEEDED:
        raise _not_reproducible(f"a job of kind {job.kind} that is {job.state}", "wait for it, or name another job")
    if "deleted_dataset" in job.inputs:
        raise _not_reproducible(f"its dataset {job.inputs['deleted_dataset']} deleted", "run a new job on other data")
    version = session.scalar(select(ModelVersion).where(ModelVersion.job_id == job_id))
    if version is None:
        raise _not_reproducible("the version that it published deleted", "run the job again and compare the reports")
    backbones.check_usable(session, project, job.backbone or backbones.AUTO, offline)
    name = session.get_one(Model, version.model_id).name
    original = {"job": job_id, "prefix": version.prefix, "model": name, "version": version.version}
    request, new = of_transfer(REPRODUCE, job, name, version.version, {"original": original})
    new = replace(new, datasets={role: row.id for role, row in jobs.datasets(session, job_id).items()})
    return studies.create(session, Evaluation, project, request, new)


def of_transfer(
    mode: str, job: Job, model: str, version: int, inputs: dict[str, Any]
) -> tuple[dict[str, Any], jobs.NewJob]:
    """What is asked of a finished transfer, and the job that carries its recipe out once more.

    Args:
        mode: of the evaluation.
        job: the transfer.
        model: that it published.
        version: of that model.
        inputs: of the new job, beside the mode.
    """
    same: dict[str, Any] = {"backbone": job.backbone, "recipe": job.recipe, "seed": job.seed}
    request = {"mode": mode, "job": job.id, "model": model, "version": version, "dataset": job.dataset_id, **same}
    new = jobs.NewJob(kind="evaluate", dataset_id=job.dataset_id, **same, inputs={"mode": mode, **inputs})
    return request, new


def _not_reproducible(found: str, todo: str) -> Conflict:
    return Conflict(
        f"expected a transfer that has succeeded, with its data and its version still there; found {found}; {todo}",
        code="not_reproducible",
    )


def _check_task(dataset: Dataset) -> None:
    if dataset.task != TASK:
        raise BadRequest(
            f"expected a dataset of task {TASK}; found {dataset.task}; upload it with another task",
            code="unsupported_task",
        )


def _check_labels(dataset: Dataset) -> None:
    """Of what cannot be answered without them; how good one version is, its confidence lets estimate."""
    if not dataset.classes:
        raise BadRequest(
            f"expected a labelled dataset; found {dataset.id} without labels; upload class folders or a manifest",
            code="labels_missing",
        )


def _versions(session: Session, project: str, wish: Versions, dataset: Dataset) -> Evaluation:
    rows = [models.resolve(session, project, wish.model, wish.version, wish.alias)]
    sides = [_side(session, project, wish.model, rows[0], wish.domain, dataset)]
    request = wish.model_dump(mode="json")
    request["version"] = rows[0].version
    if wish.against is not None:
        other = wish.against
        rows.append(models.resolve(session, project, other.model, other.version, other.alias))
        sides.append(_side(session, project, other.model, rows[1], other.domain, dataset))
        request["against"]["version"] = rows[1].version
        if sides[0] == sides[1]:
            raise BadRequest(
                f"expected two versions, or one with and without a domain; found {wish.model!r} version "
                f"{rows[0].version} twice; name another one in `against`",
                code="nothing_to_compare",
            )
    related = any(_related(session, row, dataset) for row in rows)
    request["split"] = wish.split or ("test" if related else "all")
    new = jobs.NewJob(
        kind="evaluate",
        dataset_id=dataset.id,
        seed=wish.seed,
        inputs={"mode": VERSIONS, "sides": sides, "split": request["split"]},
    )
    return studies.create(session, Evaluation, project, request, new)


def _side(
    session: Session, project: str, name: str, row: ModelVersion, domain: str | None, dataset: Dataset
) -> dict[str, Any]:
    """What the job needs to open a version, and to call it as `predict` does.

    Raises:
        GraftError: see `served_versions.pinned`.
        BadRequest: code no_common_labels.
    """
    pinned = served_versions.pinned(session, project, name, row, domain)
    given = [item["name"] for item in dataset.classes]
    if given and not set(given) & set(row.spec["labels"]):
        raise BadRequest(
            f"expected a dataset that shares a label with {name!r} version {row.version} "
            f"({texts.few(sorted(row.spec['labels']))}); found {texts.few(sorted(given))}; rename its classes, "
            "or take another model",
            code="no_common_labels",
        )
    return pinned


def _related(session: Session, row: ModelVersion, dataset: Dataset) -> bool:
    """Whether a version was made from this dataset, or from one with a common base: those share their test split."""
    own = {one.id for one in datasets.family(session, dataset.project_id, dataset.id)}
    for made_from in filter(None, (row.spec.get("dataset"), row.spec.get("source"))):
        if made_from["id"] in own or own & {
            one.id for one in datasets.family(session, dataset.project_id, made_from["id"])
        }:
            return True
    return False


def _folds(session: Session, project: str, wish: Folds, offline: bool) -> Evaluation:
    backbones.check_usable(session, project, wish.backbone, offline)
    recipe = _folded(session, project, wish.recipe, wish.backbone)
    against = _folded(session, project, wish.against, wish.backbone) if wish.against is not None else None
    if against == recipe:
        raise BadRequest(
            "expected another recipe to compare with; found the same one with its defaults filled in; change it",
            code="nothing_to_compare",
        )
    request = {**wish.model_dump(mode="json"), "recipe": recipe, "against": against}
    new = jobs.NewJob(
        kind="evaluate",
        dataset_id=wish.dataset,
        backbone=wish.backbone,
        recipe=recipe,
        seed=wish.seed,
        inputs={"mode": FOLDS, "against": against, "folds": wish.folds, "repeats": wish.repeats},
    )
    return studies.create(session, Evaluation, project, request, new)


def _folded(session: Session, project: str, document: dict[str, Any], backbone: str) -> dict[str, Any]:
    """A recipe that learns from one labelled dataset, checked and with its defaults.

    Raises:
        GraftError: see `recipes.parse` and `transfers.check_attention`.
        BadRequest: code unsupported_recipe.
    """
    recipe = recipes.parse(document)
    if recipe.method not in FOLDED:
        raise BadRequest(
            f"expected a recipe that learns from one labelled dataset ({', '.join(FOLDED)}); found {recipe.method}; "
            "evaluate a published version of it instead",
            code="unsupported_recipe",
        )
    if isinstance(recipe, recipes.FineTune) and recipe.scope == "lora":
        transfers.check_attention(session, project, backbone)
    return recipe.model_dump(mode="json")
