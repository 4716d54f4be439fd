"""Resumable uploads in an S3 bucket: bytes become parts of one multipart upload as soon as there are enough of them.

A part has at least 5 MiB, but for the last one. What a request leaves over lies as an object of its own, the tail, and
begins the next part. Part numbers are given out by the upload's row, each once, so a process that was frozen and lost
its lease cannot overwrite a part of its successor.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from app.errors import NotFound, TooLarge
from app.inbox.base import READ_BYTES, Held, Part, Sink, Synced, Writer, lost
from app.storage.s3 import MISSING, S3Storage, connect

MIN_PART_BYTES = 5 * 2**20
# Ten thousand parts are the most there can be; these make 78 GiB.
PART_BYTES = 8 * 2**20
MAX_PARTS = 10_000
STRAY = timedelta(hours=1)


class S3Inbox:
    """See `app.inbox.Inbox`.

    Args:
        storage: beside whose objects the bytes gather.
        public_address: under which clients reach the object store; None where it is the one that we use.
    """

    def __init__(self, storage: S3Storage, public_address: str | None = None) -> None:
        self.storage, self.client, self.bucket = storage, storage.client, storage.bucket
        # The host is a part of what is signed.
        self._signer = connect(address=public_address) if public_address else storage.client

    def open(self, held: Held, writer: Writer) -> Sink:
        """See Inbox."""
        return _S3Sink(self, held, writer)

    def assemble(self, held: Held, parts: list[Part], writer: Writer) -> None:
        """See Inbox."""
        where = {"Bucket": self.bucket, "Key": self.storage.name(held.key)}
        try:
            tail = self.tail(held)
            if held.remote_id is None:
                self.client.put_object(**where, Body=tail)
            elif not held.size_bytes:
                # Parts of a request that was refused may lie there; none of them counts, and none cannot be joined.
                self.client.put_object(**where, Body=b"")
                self.abort(where["Key"], held.remote_id)
            else:
                if tail:
                    parts = [*parts, self.send(held, writer.reserve(held.remote_id), tail)]
                self._join(held, parts)
        except (ClientError, NotFound) as error:
            if isinstance(error, ClientError) and code(error) not in MISSING:
                raise
            # It was done before, and only the note of it is missing; or it was deleted.
            if self._size(held.key) != held.size_bytes:
                raise lost(held) from error
        self.storage.delete(held.working)

    def read(self, key: str, most_bytes: int | None = None) -> Iterator[bytes]:
        """See Inbox."""
        size = self._size(key)
        if size is None:
            raise NotFound(f"expected an object under {key!r}; found none")
        if not size:
            return
        asked = {} if most_bytes is None else {"Range": f"bytes=0-{most_bytes - 1}"}
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=self.storage.name(key), **asked)
        except ClientError as error:
            if code(error) not in MISSING:
                raise
            raise NotFound(f"expected an object under {key!r}; found that it has just gone") from error
        yield from answer["Body"].iter_chunks(READ_BYTES)

    def discard(self, held: Held) -> None:
        """See Inbox."""
        if held.remote_id is not None:
            self.abort(self.storage.name(held.key), held.remote_id)
        self.storage.delete(held.working)
        self.storage.delete(held.key)

    def forget(self, held: Held) -> None:
        """See Inbox."""
        if held.tail is not None:
            self.storage.delete(tail_key(held, held.tail))

    def room_bytes(self) -> int | None:
        """See Inbox."""
        return None

    def start_parts(self, key: str) -> str:
        """See Inbox."""
        answer = self.client.create_multipart_upload(Bucket=self.bucket, Key=self.storage.name(key))
        return str(answer["UploadId"])

    def part_url(self, held: Held, number: int, size_bytes: int, seconds: int) -> str:
        """See Inbox. The length is signed: the store refuses another one before it takes a byte."""
        what = {**self._upload(held), "PartNumber": number, "ContentLength": size_bytes}
        return str(self._signer.generate_presigned_url("upload_part", Params=what, ExpiresIn=seconds))

    def parts(self, held: Held) -> list[Part] | None:
        """See Inbox."""
        pages = self.client.get_paginator("list_parts").paginate(**self._upload(held))
        try:
            return [
                Part(item["PartNumber"], item["ETag"], item["Size"]) for page in pages for item in page.get("Parts", [])
            ]
        except ClientError as error:
            if code(error) not in MISSING:
                raise
            return None

    def strays(self, known: Callable[[str, str], bool]) -> int:
        """See Inbox."""
        top = self.storage.name("incoming")
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=f"{top}/")
        number = 0
        for page in pages:
            for item in page.get("Uploads", []):
                key = "incoming" + item["Key"].removeprefix(top)
                if item["Initiated"] < datetime.now(UTC) - STRAY and not known(key, item["UploadId"]):
                    self.abort(item["Key"], item["UploadId"])
                    number += 1
        return number

    def abort(self, name: str, remote_id: str) -> None:
        """Gives the parts up; none there is no error."""
        try:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=remote_id)
        except ClientError as error:
            if code(error) not in MISSING:
                raise

    def send(self, held: Held, number: int, data: bytes) -> Part:
        """Stores one part.

        Raises:
            TooLarge: an object store takes no part of that number.
        """
        if number > MAX_PARTS:
            raise TooLarge(
                f"expected an upload that fits into {MAX_PARTS} parts of the object store; found more; send it in "
                "larger requests",
                code="upload_too_long",
            )
        answer = self.client.upload_part(**self._upload(held), PartNumber=number, Body=data)
        return Part(number, answer["ETag"], len(data))

    def tail(self, held: Held) -> bytes:
        """Bytes that were too few for a part.

        Raises:
            NotFound: they are not there.
        """
        if held.tail is None:
            return b""
        return b"".join(self.read(tail_key(held, held.tail)))

    def _join(self, held: Held, parts: list[Part]) -> None:
        """Has the store make one object of the parts.

        Raises:
            NotFound: there are none, since nothing of the upload is open. The store is not asked: it would call an
                empty list malformed before it looks for the upload.
        """
        if not parts:
            raise NotFound(f"expected parts of {held.key!r}; found none in the object store")
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        self.client.complete_multipart_upload(**self._upload(held), MultipartUpload={"Parts": listed})

    def _upload(self, held: Held) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self.storage.name(held.key), "UploadId": held.remote_id}

    def _size(self, key: str) -> int | None:
        try:
            return int(self.client.head_object(Bucket=self.bucket, Key=self.storage.name(key))["ContentLength"])
        except ClientError as error:
            if code(error) not in MISSING:
                raise
            return None


class _S3Sink:
    """At most one part in memory."""

    def __init__(self, inbox: S3Inbox, held: Held, writer: Writer) -> None:
        self._inbox, self._held, self._writer = inbox, held, writer
        try:
            self._buffer = bytearray(inbox.tail(held))
        except NotFound as error:
            raise lost(held) from error
        self._in_parts = held.size_bytes - len(self._buffer)
        self._remote_id = held.remote_id
        self._parts: list[Part] = []

    def write(self, data: bytes) -> None:
        """See Sink."""
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            self._send(PART_BYTES)

    def sync(self, *, ending: bool) -> Synced:
        """See Sink."""
        if ending and len(self._buffer) >= MIN_PART_BYTES:
            self._send(len(self._buffer))
        tail, tail_bytes = self._held.tail, self._held.tail_bytes
        if ending and self._in_parts + len(self._buffer) != self._held.size_bytes:
            tail, tail_bytes = self._keep_tail()
        elif self._parts:
            tail, tail_bytes = None, 0
        size = self._in_parts + tail_bytes
        self._held = Held(self._held.key, self._held.working, size, self._remote_id, tail, tail_bytes)
        parts, self._parts = tuple(self._parts), []
        return Synced(self._held, parts)

    def close(self, noted: Held | None = None) -> None:
        """See Sink. A part that was not noted has the number of the next one, which takes its place."""
        self._buffer.clear()

    def _keep_tail(self) -> tuple[str | None, int]:
        if not self._buffer:
            return None, 0
        name = self._writer.token
        key = self._inbox.storage.name(tail_key(self._held, name))
        self._inbox.client.put_object(Bucket=self._inbox.bucket, Key=key, Body=bytes(self._buffer))
        return name, len(self._buffer)

    def _send(self, num_bytes: int) -> None:
        if self._remote_id is None:
            self._remote_id = self._inbox.start_parts(self._held.key)
        number = self._writer.reserve(self._remote_id)
        held = Held(self._held.key, self._held.working, 0, self._remote_id)
        self._parts.append(self._inbox.send(held, number, bytes(self._buffer[:num_bytes])))
        del self._buffer[:num_bytes]
        self._in_parts += num_bytes


def tail_key(held: Held, name: str) -> str:
    """Where the tail lies; no two requests write to the same place."""
    return f"{held.working}/tail-{name}"


def code(error: ClientError) -> str:
    """What the object store calls it."""
    return str(error.response["Error"]["Code"])
