"""A version as a job's inputs name it: all that a worker needs to run it as `predict` does, without the database."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.alignments import Alignment
from app.db.models import ModelVersion
from app.errors import BadRequest
from app.services import domains

TASK = "classification"


def pinned(session: Session, project: str, name: str, row: ModelVersion, domain: str | None) -> dict[str, Any]:
    """The version's place in storage and the alignment that its domain means now; either may be moved afterwards.

    Raises:
        BadRequest: code unsupported_task.
        NotFound: code unknown_domain.
        Conflict: code alignment_mismatch.
    """
    if row.spec["task"] != TASK:
        raise BadRequest(
            f"expected a model of task {TASK}; found {name!r} version {row.version} of task {row.spec['task']}",
            code="unsupported_task",
        )
    alignment = domains.resolve(session, project, name, row, domain) if domain else None
    return {
        "model": name,
        "version": row.version,
        "prefix": row.prefix,
        "domain": domain,
        "alignment": None if alignment is None else _alignment(alignment),
    }


def _alignment(row: Alignment) -> dict[str, Any]:
    return {"id": row.id, "number": row.number, "prefix": row.prefix, "moving_backbone": row.moving_backbone}
