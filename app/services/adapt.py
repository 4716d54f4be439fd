"""What an adaptation asks of its two datasets, before any work starts."""

from sqlalchemy.orm import Session

from app.db.models import Dataset
from app.errors import BadRequest
from app.recipes import Adapt
from app.services import datasets, jobs


def source(session: Session, project: str, recipe: Adapt, target: Dataset) -> Dataset:
    """The labelled dataset that an adaptation learns from.

    Raises:
        NotFound, Conflict: it is not there, or not ready.
        BadRequest: the two datasets do not fit each other.
    """
    jobs.keep_dataset(session, recipe.source)
    found = datasets.ready(session, project, recipe.source)
    if found.id == target.id or found.digest == target.digest:
        what = f"{found.id} as both" if found.id == target.id else f"the same images and labels in {found.id}"
        raise BadRequest(
            f"expected a source other than the target; found {what}; use linear_probe on one dataset",
            code="same_domain",
        )
    if found.task != target.task:
        raise BadRequest(
            f"expected a source of the target's task {target.task!r}; found {found.task!r}; upload one of them again",
            code="task_mismatch",
        )
    known = {item["name"] for item in found.classes}
    extra = [item["name"] for item in target.classes if item["name"] not in known]
    # A source without labels is refused by `check_task`, with what to do about it.
    if known and extra:
        raise BadRequest(
            f"expected the target's classes to be among the source's {len(known)}; found {len(extra)} others "
            f"({', '.join(extra[:5])}); rename them, or upload the target without labels",
            code="classes_differ",
        )
    if recipe.target_labels:
        _check_target_labels(target, known)
    return found


def _check_target_labels(target: Dataset, known: set[str]) -> None:
    """Refuses a target that is to be learned from but has classes without an image.

    Raises:
        BadRequest: code labels_missing.
    """
    missing = sorted(known - {item["name"] for item in target.classes})
    if missing:
        raise BadRequest(
            f"expected labelled images of each of the source's classes in the target; found none of "
            f"{', '.join(missing[:5])} ({len(missing)} in all); label some, or leave target_labels off",
            code="labels_missing",
        )
