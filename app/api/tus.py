"""The tus protocol, version 1.0.0 (tus.io): its headers in and out, and a body that may break off at any byte."""

import base64
import re
from collections.abc import AsyncIterator
from datetime import UTC
from email.utils import format_datetime

import anyio
from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.forms import plain_type
from app.api.headers import first
from app.db.uploads import Upload
from app.errors import BadRequest, TimedOut, Unsupported, UnsupportedMediaType, WrongVersion

PATH = "/api/v1/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination"
# Digest sizes in bytes.
ALGORITHMS = {"sha1": 20, "sha256": 32}
BODY = "application/offset+octet-stream"
MAX_METADATA = 8192
MAX_FILENAME = 255
WRITE_BYTES = 2**20
# After so long without a byte others may write; after so many such times the request is over.
PAUSE_SECONDS = 2.0
MAX_PAUSES = 30
OVERRIDES = frozenset({"PATCH", "DELETE", "HEAD"})
_NUMBER = re.compile(r"[0-9]{1,18}")
_METADATA_KEY = re.compile(r"[!-+\--~]+")


class Tus:
    """ASGI middleware: names the protocol's version in every answer, and takes PATCH and DELETE in a POST's clothes.

    The first is demanded of errors too; the second is for clients behind proxies that know no other methods.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes what is not below `/uploads` on untouched."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        override = (first(scope, b"x-http-method-override") or "").upper()
        if scope["method"] == "POST" and override in OVERRIDES:
            scope = {**scope, "method": override}

        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = VERSION
                if message["status"] == WrongVersion.status:
                    headers["Tus-Version"] = VERSION
            await send(message)

        await self._app(scope, receive, send_versioned)


def check_version(request: Request, *, required: bool = True) -> None:
    """Refuses another version of the protocol, before anything is done.

    Raises:
        WrongVersion: another version, or none where one is required.
    """
    found = request.headers.get("tus-resumable")
    if found != VERSION and (required or found is not None):
        raise WrongVersion(f"expected the header Tus-Resumable: {VERSION}; found {found or 'none'}; send that version")


def check_body_type(request: Request) -> None:
    """Refuses a body that is not said to be bytes of an upload.

    Raises:
        UnsupportedMediaType: it is something else.
    """
    found = plain_type(request, "content-type")
    if found != BODY:
        raise UnsupportedMediaType(f"expected a body of content type {BODY}; found {found or 'none'}; send that header")


def number(request: Request, name: str) -> int | None:
    """A header that counts bytes; None where there is none.

    Raises:
        BadRequest: code tus_header, it is no whole number from 0.
    """
    found = request.headers.get(name)
    if found is None:
        return None
    if not _NUMBER.fullmatch(found):
        raise _bad(
            name, "a whole number of bytes, of 1 to 18 digits", found[:100], "send it in digits alone, without a sign"
        )
    return int(found)


def offset(request: Request) -> int:
    """Where the body's bytes begin.

    Raises:
        BadRequest: code tus_header.
    """
    found = number(request, "Upload-Offset")
    if found is None:
        raise _bad(
            "Upload-Offset",
            "the number of bytes that are here already",
            None,
            "ask with HEAD, and send what it answers",
        )
    return found


def length(request: Request) -> int | None:
    """The size that an upload begins with; None when it is told later.

    Raises:
        BadRequest: code tus_header, neither or both are there.
        Unsupported: uploads that are put together from others.
    """
    if "upload-concat" in request.headers:
        raise Unsupported("expected an upload of its own; found Upload-Concat; send the file as one upload")
    found, deferred = number(request, "Upload-Length"), request.headers.get("upload-defer-length")
    if deferred not in (None, "1") or (found is None) == (deferred is None):
        size, later = "none" if found is None else found, "none" if deferred is None else deferred[:100]
        raise _bad(
            "Upload-Length",
            "a size, or Upload-Defer-Length: 1 in its place",
            f"Upload-Length {size} and Upload-Defer-Length {later}",
            "send one of the two",
        )
    return found


def metadata(request: Request) -> tuple[str | None, str | None]:
    """The header as it came, and the file's name in it; None for each that is not there.

    Raises:
        BadRequest: code tus_header.
    """
    text = request.headers.get("upload-metadata", "").strip()
    if not text:
        return None, None
    if len(text) > MAX_METADATA:
        raise _bad(
            "Upload-Metadata", f"at most {MAX_METADATA} characters", f"{len(text)}", "send less, or leave it out"
        )
    found: dict[str, bytes] = {}
    for pair in text.split(","):
        name, _, value = pair.strip().partition(" ")
        data = _decoded(value)
        if not _METADATA_KEY.fullmatch(name) or name in found or data is None:
            raise _bad(
                "Upload-Metadata",
                "pairs of a key, each once, and a value in base64",
                pair[:100],
                "separate pairs with commas, and a value from its key with a space",
            )
        found[name] = data
    called = found.get("filename", found.get("name", b""))
    return text, filename(called.decode(errors="replace"))


def filename(given: str) -> str | None:
    """A file's name without its folders, and no longer than names are."""
    return given.replace("\0", "").replace("\\", "/").rpartition("/")[2][-MAX_FILENAME:] or None


def checksum(request: Request) -> tuple[str, bytes] | None:
    """Algorithm and digest of the body; None where none is given.

    Raises:
        BadRequest: code tus_header, another algorithm or no digest of it.
    """
    text = request.headers.get("upload-checksum")
    if text is None:
        return None
    name, _, value = text.partition(" ")
    digest = _decoded(value)
    if digest is None or len(digest) != ALGORITHMS.get(name):
        raise _bad(
            "Upload-Checksum",
            f"one of {', '.join(ALGORITHMS)} and a digest of it in base64",
            text[:100],
            "send both with a space between, or leave it out",
        )
    return name, digest


def _decoded(value: str) -> bytes | None:
    """What a header says in base64; None where it is none."""
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        # A header may have any byte; what is no ASCII is refused by another error than other characters are.
        return None


async def body(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces; an empty one after each time without a byte.

    Raises:
        ClientDisconnect: it broke off; all that came was given before.
        TimedOut: no byte came for too long; as above.
    """
    waiting, pauses = bytearray(), 0
    while True:
        message: Message | None = None
        try:
            with anyio.move_on_after(PAUSE_SECONDS):
                message = await request.receive()
        except TimedOut:
            # GRAFT_BODY_IDLE_SECONDS may be less than our own patience.
            if waiting:
                yield bytes(waiting)
            raise
        pauses = 0 if message is not None else pauses + 1
        if message is not None and message["type"] == "http.request":
            waiting += message.get("body", b"")
            if len(waiting) < WRITE_BYTES and message.get("more_body", False):
                continue
        if waiting:
            yield bytes(waiting)
            waiting.clear()
        if message is None:
            if pauses > MAX_PAUSES:
                raise TimedOut(
                    f"expected the rest of the body; found nothing for {MAX_PAUSES * PAUSE_SECONDS:.0f} s; what had "
                    "come is kept; ask with HEAD how much that is, and go on from there"
                )
            yield b""
        elif message["type"] == "http.disconnect":
            raise ClientDisconnect
        elif not message.get("more_body", False):
            return


def headers(row: Upload) -> dict[str, str]:
    """What a client is told of an upload."""
    found = {
        "Upload-Offset": str(row.received_bytes),
        "Upload-Expires": format_datetime(row.expires_at.astimezone(UTC), usegmt=True),
        "Cache-Control": "no-store",
    }
    if row.size_bytes is None:
        found["Upload-Defer-Length"] = "1"
    else:
        found["Upload-Length"] = str(row.size_bytes)
    if row.tus_metadata is not None:
        found["Upload-Metadata"] = row.tus_metadata
    return found


def abilities(most_bytes: int) -> dict[str, str]:
    """What OPTIONS says."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(most_bytes),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }


def _bad(name: str, expected: str, found: str | None, wanted: str) -> BadRequest:
    return BadRequest(f"expected {expected} in the header {name}; found {found or 'none'}; {wanted}", code="tus_header")
