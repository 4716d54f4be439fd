"""What a supervisor tells its runner about the job: one JSON line. The runner never sees the database."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class DatasetDocument(BaseModel):
    """The dataset that a job works on."""

    model_config = ConfigDict(frozen=True)

    id: str
    prefix: str
    task: str
    digest: str | None
    seed: int
    classes: list[dict[str, Any]]
    splits: dict[str, int]
    base_prefix: str | None = None


class JobDocument(BaseModel):
    """One attempt at one job.

    `datasets` are those beside the one it works on, by their role; `earlier_seconds` what the attempts before it took.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    project: str
    attempt: int
    earlier_seconds: float = 0.0
    kind: str
    recipe: dict[str, Any] | None
    seed: int
    report_mode: str
    model_name: str | None
    backbone: str | None
    user_backbones: list[dict[str, Any]]
    dataset: DatasetDocument | None
    inputs: dict[str, Any]
    datasets: dict[str, DatasetDocument] = {}
    trace_parent: str | None = None
    request_id: str | None = None

    def ids(self) -> dict[str, Any]:
        """What lines of the log are about, see `app.log_lines`."""
        return {
            "request_id": self.request_id, "project": self.project, "job_id": self.id, "attempt": self.attempt
        }  # fmt: skip

    @property
    def bundle_prefix(self) -> str:
        """Where this attempt's bundle goes: its own place, so a late attempt can never mix with another."""
        return f"bundles/{self.project}/{self.id}/attempt-{self.attempt}"

    @property
    def checkpoint_prefix(self) -> str:
        """Where the job's checkpoints go: shared by its attempts."""
        return f"checkpoints/{self.project}/{self.id}"
