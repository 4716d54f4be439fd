"""Storage in an S3 bucket. Objects are immutable once written, so local copies never go stale.

Credentials and endpoint come from the environment that boto3 reads (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error, S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import RetriesExceededError

from app import failpoints
from app.errors import NotFound, Unavailable
from app.storage.base import DRAFTS, Stored, check_key, out_of_space
from app.storage.copies import is_there

MISSING = frozenset({"404", "NoSuchKey", "NoSuchUpload"})
# Times that a call is made before it fails: waits grow to 20 s, so that a job outlasts an outage of half a minute, and
# a request is answered within seconds.
PATIENT_ATTEMPTS, ATTEMPTS = 12, 3
CONNECT_SECONDS, READ_SECONDS = 5, 30
SERVER_ERROR = 500

# What the client raises: the store is not reached, does not answer, or refuses.
FAILURES = (Boto3Error, BotoCoreError, ClientError, RetriesExceededError)

log = logging.getLogger(__name__)


def connect(attempts: int = ATTEMPTS, address: str | None = None) -> Any:
    """A client of the object store; it asks for nothing until it is used.

    Args:
        attempts: times that a call is made before it fails.
        address: of the store; by default what boto3 finds in the environment.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        # Also for URLs, which would else be signed in a way that newer buckets refuse.
        signature_version="s3v4",
    )
    return boto3.client("s3", config=config, endpoint_url=address)


class S3Storage:
    """See `app.storage.Storage`.

    Args:
        bucket: that has the objects.
        prefix: of all their names.
        cache: folder of local copies.
        patient: whether a call outlasts an outage of the object store.
    """

    def __init__(self, bucket: str, prefix: str, cache: Path, *, patient: bool = False) -> None:
        self.client = connect(PATIENT_ATTEMPTS if patient else ATTEMPTS)
        self.bucket, self._prefix, self._cache = bucket, prefix, cache

    def put(self, key: str, source: Path) -> None:
        """See Storage."""
        with reaching():
            self.client.upload_file(str(source), self.bucket, self.name(key))
        failpoints.reach("object_sent")
        self._local(key).unlink(missing_ok=True)

    def fetch(self, key: str) -> Path:
        """See Storage. Downloaded once, then read from the cache."""
        local = self._local(key)
        if is_there(local):
            return local
        local.parent.mkdir(parents=True, exist_ok=True)
        drafts = self._cache / DRAFTS
        drafts.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=drafts, delete=False) as temporary:
            try:
                with reaching():
                    self.client.download_fileobj(self.bucket, self.name(key), temporary)
            except ClientError as error:
                Path(temporary.name).unlink()
                if error.response["Error"]["Code"] in MISSING:
                    raise NotFound(f"expected an object under {key!r}; found none") from error
                raise
            except OSError as error:
                Path(temporary.name).unlink()
                raise out_of_space(error) from error
            except BaseException:
                Path(temporary.name).unlink()
                raise
        failpoints.reach("object_fetched")
        Path(temporary.name).replace(local)
        return local

    def forget(self, key: str) -> None:
        """See Storage."""
        self._local(key).unlink(missing_ok=True)

    def delete(self, prefix: str) -> None:
        """See Storage."""
        for key in [prefix, *self.list(prefix)]:
            with reaching():
                self.client.delete_object(Bucket=self.bucket, Key=self.name(key))
            self._local(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[str]:
        """See Storage."""
        for stored in self._objects(self.name(prefix) + "/"):
            yield stored.key

    def walk(self) -> Iterator[Stored]:
        """See Storage."""
        yield from self._objects(self._top)
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._top)
        with reaching():
            for page in pages:
                for item in page.get("Uploads", []):
                    key = item["Key"].removeprefix(self._top)
                    yield Stored(key, 0, item["Initiated"].timestamp(), unfinished=item["UploadId"])

    def stat(self, key: str) -> Stored | None:
        """See Storage."""
        try:
            with reaching():
                found = self.client.head_object(Bucket=self.bucket, Key=self.name(key))
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise
            return None
        return Stored(key, int(found["ContentLength"]), found["LastModified"].timestamp())

    def remove(self, stored: Stored) -> None:
        """See Storage."""
        # Not by `name`: in a bucket there may be anything.
        where = {"Bucket": self.bucket, "Key": self._top + stored.key}
        if not stored.unfinished:
            with reaching():
                self.client.delete_object(**where)
            self._copy(self._top + stored.key).unlink(missing_ok=True)
            return
        try:
            with reaching():
                self.client.abort_multipart_upload(**where, UploadId=stored.unfinished)
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise

    def name(self, key: str) -> str:
        """The key's name in the bucket."""
        return f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)

    @property
    def _top(self) -> str:
        return f"{self._prefix}/" if self._prefix else ""

    def _objects(self, prefix: str) -> Iterator[Stored]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        with reaching():
            for page in pages:
                for item in page.get("Contents", []):
                    yield Stored(item["Key"].removeprefix(self._top), item["Size"], item["LastModified"].timestamp())

    def _local(self, key: str) -> Path:
        return self._copy(self.name(key))

    def _copy(self, name: str) -> Path:
        where = hashlib.sha256(f"{self.bucket}/{name}".encode()).hexdigest()
        return self._cache / where[:2] / where


@contextmanager
def reaching() -> Iterator[None]:
    """Tells an object store that is away from one that refuses.

    Raises:
        Unavailable: it does not answer, or answers that it cannot at the moment.
    """
    try:
        yield
    except (BotoCoreError, ClientError, RetriesExceededError, S3UploadFailedError) as error:
        cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
        if isinstance(cause, ClientError) and cause.response["ResponseMetadata"]["HTTPStatusCode"] < SERVER_ERROR:
            raise
        # Its own words name hosts and buckets, which are not for whoever asks.
        log.warning("the object store: %s", error)
        raise Unavailable(
            f"expected the object store to answer; found {type(error).__name__}; try again in a moment"
        ) from error
