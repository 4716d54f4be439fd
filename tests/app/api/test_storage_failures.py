"""An object store that is away: no error of ours, and the same requests work once it is back."""

from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from tests import factories
from tests.checks import problem

pytestmark = pytest.mark.server
ARCHIVE = factories.pack(factories.pictures(2))
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "10", "Content-Type": "application/offset+octet-stream"}
SENT = [
    ("/api/v1/datasets", 202, {"files": {"file": ("a.zip", ARCHIVE)}, "data": {"name": "a"}}),
    ("/api/v1/uploads", 201, {"content": b"half", "headers": TUS}),
    ("/api/v1/uploads", 201, {"json": {"size_bytes": 10, "filename": "a.zip", "via": "s3"}}),
]


@pytest.fixture
def bucket(s3_url: str) -> str:
    return urlsplit(s3_url).netloc


@pytest.fixture
def client(light, s3_url: str) -> Iterator[TestClient]:
    settings = light.model_copy(update={"storage_url": s3_url})
    # Cached, if something has asked for it before.
    settings.__dict__.pop("resolved_storage_url", None)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as found:
        yield found


def test_requests_are_told_to_come_again(client, bucket):
    import boto3

    with closing(boto3.client("s3")) as store:
        store.delete_bucket(Bucket=bucket)
        for path, _, request in SENT:
            answer = client.post(path, **request)
            problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert bucket not in answer.text
        assert client.get("/api/v1/datasets").json()["data"] == []
        store.create_bucket(Bucket=bucket)
    for path, status, request in SENT:
        assert client.post(path, **request).status_code == status
