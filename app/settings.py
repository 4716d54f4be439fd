"""Every setting of every process, read from `GRAFT_*` variables. docs/settings.md has a line for each."""

import ipaddress
import sys
import types
from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app import cores

# Whose everything is where no keys are asked for.
DEFAULT_PROJECT = "default"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
# How a URL may begin, by its setting. Of PostgreSQL's drivers psycopg is installed, whatever others call it.
POSTGRESQL = "postgresql+psycopg://"
_OTHER_POSTGRESQL = ("postgresql://", "postgres://")
_BEGINNINGS = types.MappingProxyType(
    {
        "database_url": ("sqlite:///", POSTGRESQL, *_OTHER_POSTGRESQL),
        "broker_url": ("redis://", "rediss://", "redis+socket://", "sentinel://", "amqp://", "amqps://"),
        "storage_url": ("file:///", "s3://"),
        "objects_url": ("http://", "https://"),
    }
)


class Settings(BaseSettings):
    """One process's configuration: frozen, built at the edge, passed down; never a global."""

    model_config = SettingsConfigDict(env_prefix="GRAFT_", frozen=True, extra="ignore")

    home: Path = Field(Path(".graft"), description="Folder of everything that is kept on this machine.")
    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs API keys.")
    require_keys: bool = Field(
        False,
        description="Whether every request needs an API key (docs/keys.md). Without, whoever reaches the port may do "
        "everything, so Graft listens on loopback alone.",
    )
    open_metrics: bool = Field(
        False,
        description="Whether `/metrics` answers without a key, for all projects together. Else it takes a key with "
        "scope `read`, and tells of that key's project.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port of the API.")
    grpc_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the Open Inference Protocol over gRPC, on the same address; 0: none. Clients expect 8001.",
    )
    allowed_hosts: tuple[str, ...] = Field((), description="Further host names that requests may name (JSON list).")
    cors_origins: tuple[str, ...] = Field(
        (),
        description="Origins such as `https://app.example.org` whose pages may call from a browser (CORS; JSON list); "
        "empty: none.",
    )
    database_url: str = Field(
        "", description="`sqlite:///FILE` or `postgresql://...`; empty means SQLite in the home folder."
    )
    database_statement_seconds: float = Field(
        30.0,
        ge=0,
        description="Longest time that PostgreSQL gives one statement of a request (its `statement_timeout`), which is "
        "then answered 503; 0: no bound. Workers, migrations, back-ups and commands have none.",
    )
    database_lock_seconds: float = Field(
        10.0,
        ge=0,
        description="Longest wait of such a statement for what another one holds (its `lock_timeout`); 0: no bound. "
        "A proxy that refuses the start-up parameter `options`, as PgBouncer may, needs this and "
        "`GRAFT_DATABASE_STATEMENT_SECONDS` at 0.",
    )
    database_silence_seconds: float = Field(
        40.0,
        ge=0,
        description="Longest wait of a request for a byte from PostgreSQL, longer than for a statement: one that is "
        "frozen takes questions and never answers. The request is then answered 503; 0: no bound.",
    )
    broker_url: str = Field(
        "",
        description="Celery broker, `redis://...` or `amqp://...`; empty means Celery's filesystem broker in the home "
        "folder.",
    )
    storage_url: str = Field(
        "", description="`file://` or `s3://bucket/prefix`; empty means a folder in the home folder."
    )
    objects_url: str = Field(
        "",
        description="Address under which clients reach the object store for uploads straight into it "
        "(docs/uploads.md); empty means the one that Graft uses, `AWS_ENDPOINT_URL`.",
    )
    prepared: Path = Field(
        Path(sys.prefix) / "share" / "graft" / "backbones",
        description="Folder of backbones that `make setup` prepared; read only.",
    )
    max_upload_bytes: int = Field(20 * 2**30, ge=1, description="Largest body of one upload.")
    body_idle_seconds: float = Field(
        60.0,
        gt=0,
        description="Longest time without a byte in the middle of a request's body, or of one line of a stream of "
        "images; then the request is refused (408), its connection ends and what came of it is removed, but for "
        "resumable uploads, which keep it.",
    )
    upload_keep_seconds: float = Field(
        86_400.0,
        gt=0,
        description="Time that a resumable upload is kept after the last bytes of it came, or after its completion.",
    )
    max_predict_bytes: int = Field(64 * 2**20, ge=1, description="Largest body of one prediction request.")
    max_held_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="Bodies of prediction requests in memory, unpacked, and images fetched for them, of all processes "
        "together; what has no room is refused. "
        "With several projects none may take the last quarter by itself.",
    )
    max_predict_images: int = Field(256, ge=1, description="Most images in one prediction request.")
    max_json_bytes: int = Field(16 * 2**20, ge=1, description="Largest JSON body of every other request.")
    max_json_values: int = Field(
        100_000, ge=1, description="Most values in that JSON, or in a field of a form: each becomes an object."
    )
    max_event_streams: int = Field(
        100,
        ge=1,
        description="Open streams of jobs' events of one project, in each process; one more is refused (429).",
    )
    image_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts of URLs that images may be fetched from, `name` or `name:port` (JSON list; without a port: "
        "80 for http, 443 for https; IPv6 in brackets); empty: none.",
    )
    max_predict_pixels: int = Field(
        32_000_000, ge=1, description="Largest width times height of an image in a prediction request."
    )
    max_image_pixels: int = Field(100_000_000, ge=1, description="Largest width times height of an image.")
    pool_bytes: int = Field(
        2 * 2**30,
        ge=1,
        description="Memory for loaded models, of all processes together; the least recently used leave first.",
    )
    max_queued_images: int = Field(
        1024,
        ge=1,
        description="Images that wait for an answer before more are refused; beyond it a project is let in that holds "
        "less than its share of so many.",
    )
    max_queue_seconds: float = Field(
        5.0, gt=0, description="Longest wait, by the rate measured, before requests are refused."
    )
    serve_processes: int = Field(
        1,
        ge=1,
        description="Processes that answer requests on the one port; each has its share of cores and memory, and "
        "counts a project's requests a second for itself (docs/keys.md).",
    )
    serve_threads: int = Field(
        0,
        ge=0,
        description="Cores that prediction uses in one process: batches on one each, an image alone on all; 0 means "
        "its share of every core.",
    )
    serve_device: str = Field(
        "auto",
        pattern="^(auto|cpu|cuda)$",
        description="Where backbones of predictions run: auto takes a GPU where onnxruntime's package for it is "
        "installed and CUDA starts, cuda refuses to start without.",
    )
    observed_share: float = Field(
        1.0, ge=0, le=1, description="Share of the prediction requests that drift is measured on; 0: none."
    )
    observed_keep_days: int = Field(
        30, ge=1, description="Full days that sums of what was answered are kept, which drift is told from."
    )
    worker_slots: int = Field(2, ge=1, description="Jobs that one worker process runs at the same time.")
    runner_nice: int = Field(
        5,
        ge=0,
        le=19,
        description="How much of its turn at the processor a job leaves to others, as `nice` does, so that a machine "
        "which also answers requests answers soon; alone on a machine a job takes no longer.",
    )
    standby: bool = Field(
        True, description="Keep one process (about 150 MB) that has done the imports of most jobs; they start at once."
    )
    worker_queues: tuple[str, ...] = Field(
        (), description="Queues of this worker (JSON list); empty means by its hardware."
    )
    lease_seconds: float = Field(10.0, gt=0, description="A worker that stays silent for this long has lost its job.")
    max_attempts: int = Field(3, ge=1, description="Times that a job is started before it fails as worker_lost.")
    job_timeout_seconds: float = Field(86_400.0, gt=0, description="Longest run of one attempt.")
    stop_grace_seconds: float = Field(
        4.0, gt=0, description="Time a running job gets to save its state when its worker shuts down."
    )
    collect_seconds: float = Field(
        21_600.0,
        ge=0,
        description="Time between two looks of the workers at all of storage, which remove what nothing refers to any "
        "more (docs/operations.md); 0: none.",
    )
    collect_grace_seconds: float = Field(
        86_400.0,
        ge=0,
        description="Age at which something in storage that nothing refers to is removed: bytes come before the row "
        "that names them.",
    )
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$", description="Where the worker computes.")
    compute_threads: int = Field(0, ge=0, description="Threads of one job's arithmetic; 0 means one for each core.")
    webhook_allowed: tuple[str, ...] = Field(
        (),
        description="Networks (`10.0.0.0/8`) and hosts (`name` or `name:port`; without a port: 80 for http, "
        "443 for https) that webhooks may go to although their addresses are not public (JSON list).",
    )
    webhook_timeout_seconds: float = Field(
        15.0, gt=0, le=120, description="Longest wait for a webhook's receiver: to connect, to send and to answer."
    )
    webhook_disable_days: float = Field(
        5.0, gt=0, description="A webhook whose deliveries have all failed for so long is disabled."
    )
    webhook_keep_days: int = Field(30, ge=1, description="Days that deliveries of webhooks are kept.")
    offline: bool = Field(False, description="Never try to download weights.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: str = Field(
        "text",
        pattern="^(text|json)$",
        description="Lines of the log on standard error: for people, or one JSON object each, with the ids of request, "
        "project and job (docs/operations.md).",
    )
    otlp_endpoint: str = Field(
        "",
        pattern="^(https?://[^/]+.*)?$",
        description="Base URL of an OpenTelemetry collector (OTLP over HTTP), such as `http://127.0.0.1:4318`, that "
        "traces are sent to; needs the extra `otel`. Empty: no traces.",
    )

    @field_validator("log_level")
    @classmethod
    def _is_a_level(cls, given: str) -> str:
        if given.upper() not in LOG_LEVELS:
            raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}")
        return given.upper()

    @field_validator(*_BEGINNINGS)
    @classmethod
    def _begins_as_known(cls, given: str, info: ValidationInfo) -> str:
        known = _BEGINNINGS[str(info.field_name)]
        beginning = next((one for one in known if given.startswith(one)), "")
        if given and not beginning:
            raise ValueError(f"expected a URL that begins with one of {', '.join(known)}")
        if given == "s3://":
            raise ValueError("expected the name of a bucket behind s3://")
        return POSTGRESQL + given.removeprefix(beginning) if beginning in _OTHER_POSTGRESQL else given

    @field_validator("image_hosts", "webhook_allowed")
    @classmethod
    def _can_allow_something(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for entry in given:
            if "/" in entry:
                ipaddress.ip_network(entry)
            elif entry.count(":") > 1 and "[" not in entry:
                raise ValueError(f'expected IPv6 as in "[::1]" or "[::1]:9000"; found "{entry}"; write the brackets')
        return given

    @cached_property
    def home_path(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().resolve()

    @cached_property
    def resolved_database_url(self) -> str:
        """The database's URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.home_path / 'graft.db'}"

    @cached_property
    def resolved_storage_url(self) -> str:
        """The storage's URL, with the default filled in."""
        return self.storage_url or f"file://{self.home_path / 'storage'}"

    @property
    def broker_folder(self) -> Path:
        """Where the filesystem broker keeps its messages."""
        return self.home_path / "broker"

    @property
    def scratch(self) -> Path:
        """Working files that may vanish; every user of it cleans up after itself."""
        return self.home_path / "scratch"

    @property
    def cores(self) -> int:
        """Cores that this process may use."""
        return cores.usable()

    @property
    def num_serve_threads(self) -> int:
        """Cores that prediction uses in one process."""
        return self.serve_threads or max(1, self.cores // self.serve_processes)

    @property
    def num_compute_threads(self) -> int:
        """Threads of one job's arithmetic."""
        return self.compute_threads or self.cores
