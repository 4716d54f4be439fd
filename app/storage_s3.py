"""Storage in an S3 bucket. Objects are immutable once written, so local copies never go stale.

Credentials and endpoint come from the environment that boto3 reads (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from app import failpoints
from app.errors import NotFound
from app.storage import DRAFTS, check_key, out_of_space


class S3Storage:
    """See `app.storage.Storage`."""

    def __init__(self, bucket: str, prefix: str, cache: Path) -> None:
        self.client = boto3.client("s3")
        self.bucket, self._prefix, self._cache = bucket, prefix, cache

    def put(self, key: str, source: Path) -> None:
        """See Storage."""
        self.client.upload_file(str(source), self.bucket, self.name(key))
        failpoints.reach("object_sent")
        self._local(key).unlink(missing_ok=True)

    def fetch(self, key: str) -> Path:
        """See Storage. Downloaded once, then read from the cache."""
        local = self._local(key)
        if local.is_file():
            return local
        local.parent.mkdir(parents=True, exist_ok=True)
        drafts = self._cache / DRAFTS
        drafts.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=drafts, delete=False) as temporary:
            try:
                self.client.download_fileobj(self.bucket, self.name(key), temporary)
            except ClientError as error:
                Path(temporary.name).unlink()
                if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                    raise NotFound(f"expected an object under {key!r}; found none") from error
                raise
            except OSError as error:
                Path(temporary.name).unlink()
                raise out_of_space(error) from error
        failpoints.reach("object_fetched")
        Path(temporary.name).replace(local)
        return local

    def delete(self, prefix: str) -> None:
        """See Storage."""
        for key in [prefix, *self.list(prefix)]:
            self.client.delete_object(Bucket=self.bucket, Key=self.name(key))
            self._local(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[str]:
        """See Storage."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.name(prefix) + "/"
        )
        cut = len(self._prefix) + 1 if self._prefix else 0
        for page in pages:
            for item in page.get("Contents", []):
                yield item["Key"][cut:]

    def name(self, key: str) -> str:
        """The key's name in the bucket."""
        return f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)

    def _local(self, key: str) -> Path:
        where = hashlib.sha256(f"{self.bucket}/{self.name(key)}".encode()).hexdigest()
        return self._cache / where[:2] / where
