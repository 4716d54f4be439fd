"""The application on both stacks: SQLite and a folder, PostgreSQL and an object store. One of each for a module."""

import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.deps import State
from app.db.uploads import Upload
from app.inbox.s3 import PART_BYTES
from app.services.upload_leases import Desk
from app.settings import Settings
from app.storage import open_storage
from tests import listening
from tests.conftest import NUMBERS, Cluster

TUS = {"Tus-Resumable": "1.0.0"}
BODY = "application/offset+octet-stream"
# More than one part of an object store, and no multiple of anything.
DATA = os.urandom(PART_BYTES + 3_456_789)
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Service:
    """A running application, and what an upload's client does by hand."""

    url: str
    state: State
    http: httpx.Client

    def request(self, method: str, path: str = "", **arguments: Any) -> httpx.Response:
        """One call below `/uploads`, in the version that is spoken."""
        headers = {**TUS, **arguments.pop("headers", {})}
        return self.http.request(method, f"/api/v1/uploads{path}", headers=headers, **arguments)

    def begin(self, size: int | None = len(DATA), **headers: str) -> str:
        """A new upload's id."""
        told = {"Upload-Defer-Length": "1"} if size is None else {"Upload-Length": str(size)}
        made = self.request("POST", headers={**told, **headers})
        assert made.status_code == 201, made.text
        return made.headers["Location"].rpartition("/")[2]

    def patch(self, upload_id: str, offset: int, data: Any, **headers: str) -> httpx.Response:
        """Bytes at an offset."""
        told = {"Upload-Offset": str(offset), "Content-Type": BODY}
        return self.request("PATCH", f"/{upload_id}", content=data, headers={**told, **headers})

    def offset(self, upload_id: str) -> int:
        """How much is there."""
        return int(self.request("HEAD", f"/{upload_id}").headers["Upload-Offset"])

    def complete(self, upload_id: str, sha256: str = SHA256, **fields: Any) -> httpx.Response:
        """Asks for the verification."""
        return self.request("POST", f"/{upload_id}/complete", json={"sha256": sha256, **fields})

    def whole(self, data: bytes, filename: str = "data.zip") -> str:
        """A complete upload of those bytes."""
        upload_id = self.request("POST", json={"size_bytes": len(data), "filename": filename}).json()["id"]
        assert self.patch(upload_id, 0, data).status_code == 204
        assert self.complete(upload_id, hashlib.sha256(data).hexdigest()).status_code == 200
        return upload_id

    def stored(self) -> list[str]:
        """What uploads have in storage."""
        return [key for top in ("uploads", "incoming") for key in self.state.storage.list(top)]

    def begin_patch(self, upload_id: str, offset: int, num_bytes: int) -> socket.socket:
        """A connection on which the headers of a PATCH were sent; the test sends the body, or part of it."""
        parts = urlsplit(self.url)
        connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        lines = [
            f"PATCH /api/v1/uploads/{upload_id} HTTP/1.1", f"Host: {parts.netloc}", "Tus-Resumable: 1.0.0",
            f"Upload-Offset: {offset}", f"Content-Type: {BODY}", f"Content-Length: {num_bytes}",
        ]  # fmt: skip
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def change(self, upload_id: str, change: Callable[[Upload], None]) -> None:
        """Changes the row."""
        with self.state.database.write() as session:
            change(session.get_one(Upload, upload_id))


def desk(service: Service) -> Desk:
    """What writers work with, for a test that is one of them."""
    return Desk(service.state.database, service.state.inbox, timedelta(days=1), 2**40)


@pytest.fixture(scope="module", params=["laptop", pytest.param("team", marks=pytest.mark.server)])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application on either stack."""
    home = tmp_path_factory.mktemp("home")
    with ExitStack() as stack:
        if request.param == "laptop":
            shutil.copyfile(request.getfixturevalue("sqlite_template"), home / "graft.db")
            settings = Settings(home=home)
        else:
            settings = _team(request, home, stack)
        url, state = stack.enter_context(listening.application(settings))
        http = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=60))
        yield Service(url, state, http)


def _team(request: pytest.FixtureRequest, home: Path, stack: ExitStack) -> Settings:
    import boto3

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    for name, value in {
        "AWS_ENDPOINT_URL": request.getfixturevalue("s3_endpoint"), "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        patch.setenv(name, value)
    bucket = f"uploads-{next(NUMBERS)}"
    with closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket=bucket)
    cluster: Cluster = request.getfixturevalue("postgres")
    name = f"uploads_{next(NUMBERS)}"
    cluster.run(f"CREATE DATABASE {name} TEMPLATE migrated")
    stack.callback(lambda: cluster.run(f"DROP DATABASE {name} WITH (FORCE)"))
    url = f"s3://{bucket}/some/prefix"
    open_storage(url, home / "cache")
    return Settings(home=home, database_url=cluster.url(name), storage_url=url)
