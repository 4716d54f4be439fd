"""Datasets that a transfer uses beside its own, by role; checked before any work starts."""

from sqlalchemy.orm import Session

from app.db.models import Dataset
from app.errors import BadRequest
from app.recipes import Adapt, AnyRecipe, Auto
from app.services import adapt, datasets, jobs

SOURCE, UNLABELLED = "source", "unlabelled"


def find(session: Session, project: str, recipe: AnyRecipe, dataset: Dataset | None) -> dict[str, Dataset]:
    """What the recipe names beside the job's own dataset, by role.

    Raises:
        NotFound, Conflict: one is not there, or not ready.
        BadRequest: they do not fit each other.
    """
    found: dict[str, Dataset] = {}
    if dataset is None:
        return found
    if isinstance(recipe, Adapt):
        found[SOURCE] = adapt.source(session, project, recipe, dataset)
    if isinstance(recipe, Auto):
        if recipe.source is not None:
            found[SOURCE] = adapt.source(session, project, Adapt(source=recipe.source), dataset)
        if recipe.unlabelled is not None:
            found[UNLABELLED] = _unlabelled(session, project, recipe.unlabelled, (dataset, *found.values()))
    return found


def _unlabelled(session: Session, project: str, dataset_id: str, others: tuple[Dataset, ...]) -> Dataset:
    """More images of the job's kind; whether they have labels does not matter, none is read.

    Raises:
        NotFound, Conflict: it is not there, or not ready.
        BadRequest: code same_domain, these images are used in another role already; task_mismatch.
    """
    jobs.keep_dataset(session, dataset_id)
    found = datasets.ready(session, project, dataset_id)
    for other in others:
        if found.id == other.id or found.digest == other.digest:
            raise BadRequest(
                f"expected unlabelled images beside those of the dataset and the source; found {found.id}, which has "
                f"the images of {other.id}; leave unlabelled out, or name another dataset",
                code="same_domain",
            )
    if found.task != others[0].task:
        raise BadRequest(
            f"expected unlabelled images of the dataset's task {others[0].task!r}; found {found.task!r}; upload one of "
            "them again",
            code="task_mismatch",
        )
    return found
