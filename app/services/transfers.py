"""Asking for a transfer: everything that can be refused is refused here, before any work starts."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app import backbones as catalogue
from app import recipes
from app.db.models import Dataset, Job
from app.errors import BadRequest, Unprocessable
from app.recipes import ZeroShot
from app.services import backbones, companions, datasets, jobs, publications, zero_shot


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user asks for."""

    dataset_id: str | None
    backbone: str
    recipe: dict[str, Any]
    model: str
    seed: int
    report: str
    depends_on: tuple[str, ...]
    allow_label_change: bool
    sample: bool = True
    int8: bool = False
    fp16: bool = False
    priority: int = 0


def create(session: Session, project: str, wish: Wish, offline: bool) -> Job:
    """Checks the wish and makes its job.

    Raises:
        GraftError: unknown recipe, field, dataset or backbone; a dataset that is not ready or of another task;
            weights that cannot be had; labels that differ from the model's.
    """
    recipe = recipes.parse(wish.recipe)
    backbones.check_usable(session, project, wish.backbone, offline)
    if isinstance(recipe, recipes.FineTune) and recipe.scope == "lora":
        check_attention(session, project, wish.backbone)
    dataset = _dataset(session, project, wish.dataset_id, recipe)
    beside = companions.find(session, project, recipe, dataset)
    labelled = beside.get(companions.SOURCE) or dataset
    if labelled is not None:
        check_task(labelled, recipe.method, companions.SOURCE if companions.SOURCE in beside else "dataset")
    for one in {id(row): row for row in (labelled, dataset) if row is not None and row.classes}.values():
        check_testable(one)
    labels = [item["name"] for item in labelled.classes] if labelled else []
    task = labelled.task if labelled else "classification"
    if isinstance(recipe, ZeroShot):
        source_model = zero_shot.Source(
            wish.backbone,
            backbones.has_classifier(session, project, wish.backbone),
            backbones.has_text_tower(session, project, wish.backbone),
        )
        zero_shot.check(recipe, labels, dataset is not None, source_model)
        labels = [one.name for one in recipe.classes]
    publications.check_labels(session, project, wish.model, task, labels, wish.allow_label_change)
    return jobs.create(
        session,
        project,
        jobs.NewJob(
            kind="transfer",
            dataset_id=wish.dataset_id,
            backbone=wish.backbone,
            recipe=recipe.model_dump(mode="json"),
            model_name=wish.model,
            allow_label_change=wish.allow_label_change,
            seed=wish.seed,
            report_mode=wish.report,
            priority=wish.priority,
            depends_on=wish.depends_on,
            datasets={role: row.id for role, row in beside.items()},
            inputs={"sample": wish.sample, "int8": wish.int8, "fp16": wish.fp16},
        ),
    )


def _dataset(session: Session, project: str, dataset_id: str | None, recipe: recipes.AnyRecipe) -> Dataset | None:
    """The job's own dataset; None for a recipe that can do without.

    Raises:
        NotFound, Conflict: it is not there, or not ready.
        Unprocessable: the recipe needs one.
    """
    if dataset_id is not None:
        jobs.keep_dataset(session, dataset_id)
        return datasets.ready(session, project, dataset_id)
    if recipe.needs_dataset:
        raise Unprocessable(
            f"expected a dataset for {recipe.method}; found none; only zero_shot works without one",
            errors=[{"pointer": "/body/dataset", "detail": "Field required"}],
        )
    return None


def check_attention(session: Session, project: str, backbone: str) -> None:
    """Refuses scope lora on a network without attention, and on `auto`, which chooses by rank alone.

    Raises:
        BadRequest: code unsupported_scope.
    """
    if backbone == backbones.AUTO:
        found = "auto, which may choose one without"
    else:
        known = backbones.find(session, project, backbone).backbone
        built = catalogue.find(known.architecture) if known.provider == catalogue.OWN else known
        if built is None or built.attention:
            return
        found = f"{backbone}, which has none"
    raise BadRequest(
        f"expected a backbone with attention for scope lora; found {found}; use scope ssf or norm, or name a vision "
        "transformer",
        code="unsupported_scope",
    )


def check_testable(dataset: Dataset) -> None:
    """Refuses a labelled dataset that has no test split: of what it teaches nobody could say how good it is.

    Raises:
        BadRequest: code no_test_items.
    """
    if not dataset.splits.get("test"):
        raise BadRequest(
            f"expected a dataset with a test split; found {dataset.id} with none; add different pictures of its "
            "classes, or send a test split",
            code="no_test_items",
        )


def check_task(dataset: Dataset, method: str, field: str = "dataset") -> None:
    """Refuses a dataset whose task the method does not have, or without labels where labels are learned from.

    Args:
        dataset: whose labels are learned from.
        method: of the recipe.
        field: in which the request names it.

    Raises:
        BadRequest: code unsupported_task, labels_missing.
    """
    built = recipes.TASKS[method]
    if dataset.task not in built:
        others = sorted(name for name, tasks in recipes.TASKS.items() if dataset.task in tasks)
        learns = (
            f"{dataset.task} is learned by {', '.join(others)}" if others else f"no method learns {dataset.task} yet"
        )
        raise BadRequest(
            f"expected a dataset of task {' or '.join(sorted(built))} for {method}; found {dataset.task}; {learns}; "
            "upload it again with another task, if its labels are of that kind",
            code="unsupported_task",
        )
    if not dataset.classes and recipes.RECIPES[method].needs_dataset:
        raise BadRequest(
            f"expected a labelled dataset as {field} for {method}; found {dataset.id} without labels; name another, or "
            "upload it with its classes",
            code="labels_missing",
        )
