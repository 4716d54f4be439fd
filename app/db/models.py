"""The tables. Every row has its project; relations are loaded by name or not at all."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, UtcDateTime, now

_ID = String(40)
_NAME = String(100)


class Project(Base):
    """The owner of everything below."""

    __tablename__ = "project"
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    last_alignment: Mapped[int] = mapped_column(default=0, server_default="0")
    num_forecasts: Mapped[int] = mapped_column(default=0, server_default="0")
    # What it may have, see services.limits; None: no limit.
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_jobs: Mapped[int | None]
    max_requests: Mapped[float | None]
    max_gpu_seconds: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Dataset(Base):
    """Uploaded samples of one modality: validated once, immutable when ready."""

    __tablename__ = "dataset"
    __table_args__ = (Index(None, "project_id", "id"), Index(None, "base_id"))
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(_NAME)
    task: Mapped[str] = mapped_column(String(40))
    modality: Mapped[str] = mapped_column(String(20))
    base_id: Mapped[str | None] = mapped_column(_ID, ForeignKey("dataset.id"))
    job_id: Mapped[str | None] = mapped_column(_ID)
    state: Mapped[str] = mapped_column(String(20))
    seed: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str | None] = mapped_column(String(64))
    num_samples: Mapped[int] = mapped_column(default=0)
    num_problems: Mapped[int] = mapped_column(default=0)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    classes: Mapped[list[Any]] = mapped_column(default=list)
    splits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    failure_code: Mapped[str | None] = mapped_column(String(40))
    failure_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Problem(Base):
    """One finding in a dataset."""

    __tablename__ = "problem"
    dataset_id: Mapped[str] = mapped_column(_ID, ForeignKey("dataset.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    severity: Mapped[str] = mapped_column(String(10))
    code: Mapped[str] = mapped_column(String(40))
    path: Mapped[str | None]
    message: Mapped[str]
    fix: Mapped[str]


class UserBackbone(Base):
    """A user's own weights under a known architecture."""

    __tablename__ = "backbone"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(_NAME)
    job_id: Mapped[str | None] = mapped_column(_ID)
    state: Mapped[str] = mapped_column(String(20))
    prefix: Mapped[str | None]
    document: Mapped[dict[str, Any]]
    mapping: Mapped[dict[str, Any] | None]
    failure_code: Mapped[str | None] = mapped_column(String(40))
    failure_message: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(default=now)


class Job(Base):
    """One run: the row is the truth, the broker only a bell."""

    __tablename__ = "job"
    __table_args__ = (
        Index(None, "project_id", "id"),
        Index(None, "project_id", "state", "id"),
        Index(
            "ix_job_waiting",
            "queue",
            "project_id",
            "priority",
            "id",
            postgresql_where=text("state = 'queued'"),
            sqlite_where=text("state = 'queued'"),
        ),
        Index(
            "ix_job_running",
            "lease_expires_at",
            postgresql_where=text("state = 'running'"),
            sqlite_where=text("state = 'running'"),
        ),
        Index(
            "ix_job_claimed",
            "project_id",
            "claimed_at",
            postgresql_where=text("claimed_at IS NOT NULL"),
            sqlite_where=text("claimed_at IS NOT NULL"),
        ),
        Index(None, "dataset_id"),
    )
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    queue: Mapped[str] = mapped_column(String(20))
    priority: Mapped[int] = mapped_column(default=0)
    dataset_id: Mapped[str | None] = mapped_column(_ID, ForeignKey("dataset.id"))
    backbone: Mapped[str | None] = mapped_column(String(200))
    recipe: Mapped[dict[str, Any] | None]
    model_name: Mapped[str | None] = mapped_column(_NAME)
    allow_label_change: Mapped[bool] = mapped_column(default=False)
    seed: Mapped[int] = mapped_column(BigInteger, default=0)
    report_mode: Mapped[str] = mapped_column(String(10), default="fast")
    inputs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_expires_at: Mapped[datetime | None]
    # When its last attempt began; `started_at` is when the first one did.
    claimed_at: Mapped[datetime | None]
    # W3C `traceparent` of the request that asked for it, where traces are sent somewhere.
    trace_parent: Mapped[str | None] = mapped_column(String(60))
    request: Mapped[str | None] = mapped_column(String(10))
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    metrics: Mapped[dict[str, Any] | None]
    last_seq: Mapped[int] = mapped_column(default=0)
    failure_code: Mapped[str | None] = mapped_column(String(40))
    failure_message: Mapped[str | None]
    # Of the request that made it, for the log; None where no request did.
    request_id: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobDependency(Base):
    """A job starts after those it depends on have succeeded."""

    __tablename__ = "job_dependency"
    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    depends_on_id: Mapped[str] = mapped_column(_ID, ForeignKey("job.id"), primary_key=True, index=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))


class JobDataset(Base):
    """A dataset that a job uses beside the one it works on; `role` says what for."""

    __tablename__ = "job_dataset"
    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(_ID, ForeignKey("dataset.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))


class JobEvent(Base):
    """One entry of a job's log; `seq` counts from 1 without holes."""

    __tablename__ = "job_event"
    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    at: Mapped[datetime] = mapped_column(default=now)
    level: Mapped[str] = mapped_column(String(10))
    type: Mapped[str] = mapped_column(String(10))
    message: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Report(Base):
    """The transfer report of a job."""

    __tablename__ = "report"
    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    document: Mapped[dict[str, Any]]


class Model(Base):
    """A name under which versions are numbered."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(_NAME)
    last_version: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)


class ModelVersion(Base):
    """One immutable version; its bundle lies in storage under `prefix`."""

    __tablename__ = "model_version"
    __table_args__ = (
        UniqueConstraint("model_id", "version"),
        UniqueConstraint("job_id"),
        Index(None, "project_id", "size_bytes"),
        Index(
            "ix_model_version_graph",
            "project_id",
            "graph_key",
            "graph_bytes",
            postgresql_where=text("graph_key IS NOT NULL"),
            sqlite_where=text("graph_key IS NOT NULL"),
        ),
    )
    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"))
    model_id: Mapped[str] = mapped_column(_ID, ForeignKey("model.id", ondelete="CASCADE"))
    version: Mapped[int]
    # Not a foreign key: a version outlives its job's row. None where a class was added or a bundle imported.
    job_id: Mapped[str | None] = mapped_column(_ID)
    prefix: Mapped[str]
    spec: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    # Where an imported bundle came from; its metrics and its spec are then what the other side says.
    origin: Mapped[dict[str, Any] | None]
    # Of its own files, without those that it shares with others.
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    # A shared graph that the project has brought: not one of those of the catalogue.
    graph_key: Mapped[str | None] = mapped_column(String(120))
    graph_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(default=now)


class IdempotencyKey(Base):
    """The stored answer to a POST that may be sent again."""

    __tablename__ = "idempotency_key"
    project_id: Mapped[str] = mapped_column(_ID, ForeignKey("project.id"), primary_key=True)
    route: Mapped[str] = mapped_column(String(60), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    location: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class WorkerProcess(Base):
    """A worker that has shown itself; readiness and the choice of queue look here."""

    __tablename__ = "worker"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    queues: Mapped[list[Any]]
    device: Mapped[str] = mapped_column(String(100))
    backbones: Mapped[list[Any]] = mapped_column(default=list)
    started_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now, index=True)
