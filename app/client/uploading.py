"""Large files in pieces: what the service has is asked for, and the rest is sent, until all of it is there."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import httpx

from app.client.wire import ApiError, Json, Wire

READ_BYTES = 2**20
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 15.0
# In a row, without one byte that came.
MAX_FAILURES = 12
COMPLETE_SECONDS = 600.0
# What passes: others write, too much is asked, or something on the way, or the service itself, is restarted.
AGAIN = frozenset({408, 409, 423, 425, 429, 460, 500, 502, 503, 504})
# Statuses of these codes are the same as of some that pass.
FINAL_CODES = frozenset({"sha256_mismatch", "upload_via", "upload_used"})

OnSent = Callable[[int, int], None]


class Uploading(Wire):
    """Uploads that outlast broken connections and restarts; smaller files are sent at once, and again as a whole."""

    large_bytes = 32 * 2**20

    def upload(self, file: Path, *, resume: str | None = None, on_sent: OnSent | None = None) -> Json:
        """Sends a file, and goes on from where it broke off as often as it has to.

        Args:
            file: it must not change meanwhile.
            resume: id of an upload of the same file that another process has begun.
            on_sent: called with the bytes that are there, and with all there are.

        Returns:
            the complete upload; its `id` is what datasets, backbones and versions are made from.

        Raises:
            ApiError: the service refused.
            httpx.TransportError: it stayed away.
        """
        patience = Patience()
        size = file.stat().st_size
        wanted = {"size_bytes": size, "filename": file.name}
        upload_id = resume or patience.persist(lambda: self.call("POST", "/uploads", json=wanted))["id"]
        path = f"/uploads/{quote(upload_id, safe='')}"
        here = -1
        with file.open("rb") as source:
            total = _Sum(source)

            def go_on() -> Json | None:
                nonlocal here
                found = self.call("GET", path)["received_bytes"]
                if found > here:
                    patience.forget()
                here = found
                if on_sent:
                    on_sent(here, size)
                if here < size:
                    self._send(path, total, here, size, on_sent)
                    return None
                return self.call(
                    "POST", f"{path}/complete", json={"sha256": total.hexdigest()}, timeout=COMPLETE_SECONDS
                )

            while (done := patience.try_once(go_on)) is None:
                pass
        return done

    def dataset_of_upload(self, upload_id: str, name: str, **fields: str | int) -> Json:
        """Makes a dataset of a complete upload; sent again where the answer was lost, it is made once."""
        body = {"upload_id": upload_id, "name": name, **fields}
        # Of the body too: after a refusal it may come with other fields.
        print_ = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        headers = {"Idempotency-Key": f"client-{print_}"}
        return Patience().persist(lambda: self.call("POST", "/datasets", json=body, headers=headers))

    def _send(self, path: str, total: "_Sum", offset: int, size: int, on_sent: OnSent | None) -> None:
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size - offset),
        }
        self.call("PATCH", path, content=total.pieces(offset, size, on_sent), headers=headers)


class Patience:
    """How often something is tried again, and how long is waited in between."""

    def __init__(self) -> None:
        self._failures = 0

    def forget(self) -> None:
        """Something was got done, so the next failure is the first again."""
        self._failures = 0

    def persist(self, call: Callable[[], Json]) -> Json:
        """The call's answer, once there is one."""
        while (done := self.try_once(call)) is None:
            pass
        return done

    def try_once(self, step: Callable[[], Json | None]) -> Json | None:
        """The step's answer; None after a failure that may pass, and a wait.

        Raises:
            ApiError, httpx.TransportError: it will not pass, or it lasts.
        """
        try:
            return step()
        except (httpx.TransportError, ApiError) as error:
            final = isinstance(error, ApiError) and (error.status not in AGAIN or error.code in FINAL_CODES)
            self._failures += 1
            if final or self._failures >= MAX_FAILURES:
                raise
            time.sleep(min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (self._failures - 1)))
            return None


class _Sum:
    """A file, and the sha256 of what was read of it so far from its beginning."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._sha256, self._num_bytes = source, hashlib.sha256(), 0

    def pieces(self, offset: int, end: int, on_sent: OnSent | None) -> Iterator[bytes]:
        """The file's bytes from `offset` on."""
        self._source.seek(offset)
        while data := self._source.read(min(READ_BYTES, end - offset)):
            self._add(offset, data)
            yield data
            offset += len(data)
            if on_sent:
                on_sent(offset, end)

    def hexdigest(self) -> str:
        """Of the whole file; what was not read to be sent is read now."""
        self._source.seek(self._num_bytes)
        while data := self._source.read(READ_BYTES):
            self._add(self._num_bytes, data)
        return self._sha256.hexdigest()

    def _add(self, offset: int, data: bytes) -> None:
        if offset <= self._num_bytes < offset + len(data):
            self._sha256.update(data[self._num_bytes - offset :])
            self._num_bytes = offset + len(data)
