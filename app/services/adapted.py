"""What the project's finished adaptations gained, against how far their two domains lay apart."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Job
from app.states import JobState

# Of the project's newest finished jobs, those that are looked through: a page must not read a million rows.
NEWEST = 2000


def finished(session: Session, project: str) -> Sequence[dict[str, Any]]:
    """Of the newest finished jobs of a project; oldest first.

    Returns:
        `job_id`; `distance`, the proxy A-distance of the two domains before (0 alike, 2 apart); and `gain`, the test
        accuracy over that of the source alone. Targets without labels to score with have none.
    """
    newest = (
        select(Job.id, Job.recipe, Job.metrics)
        .where(Job.project_id == project, Job.state == JobState.SUCCEEDED)
        .order_by(Job.id.desc())
        .limit(NEWEST)
    )
    found = (_adapted(job_id, recipe, metrics) for job_id, recipe, metrics in session.execute(newest))
    return [one for one in found if one is not None][::-1]


def _adapted(job_id: str, recipe: dict[str, Any] | None, metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    if not recipe or recipe.get("method") != "adapt" or not metrics:
        return None
    distance, ours, theirs = (
        metrics.get(name) for name in ("domain_distance", "test_accuracy", "source_only_accuracy")
    )
    if distance is None or ours is None or theirs is None:
        return None
    return {"job_id": job_id, "distance": distance, "gain": ours - theirs}
