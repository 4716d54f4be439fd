"""The states of jobs and datasets, and the moves between them. Only `services.jobs` and `services.datasets` move."""

from enum import StrEnum

from app.errors import Conflict


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DatasetState(StrEnum):
    """Where a dataset stands; `ready` is immutable."""

    INGESTING = "ingesting"
    READY = "ready"
    INVALID = "invalid"


class Request(StrEnum):
    """What a user asked of a running job: `cancel` discards, `stop` keeps the best so far."""

    CANCEL = "cancel"
    STOP = "stop"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    # running -> queued: the attempt was lost or handed back, another one resumes.
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),  # retry
    JobState.CANCELLED: frozenset({JobState.QUEUED}),  # retry
}


def check_move(current: JobState, wanted: JobState) -> None:
    """Refuses a move that the table does not have.

    Raises:
        Conflict: with code invalid_state.
    """
    if wanted not in MOVES[current]:
        allowed = ", ".join(sorted(MOVES[current])) or "none, it is final"
        raise Conflict(f"expected a job that can become {wanted}; found one that is {current} (next: {allowed})")
