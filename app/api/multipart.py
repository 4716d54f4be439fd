"""Multipart forms, read as they arrive: small fields into memory, files into memory or straight to disk with a hash.

The framework's own parser spools a large file to a temporary one first, which would be read and written twice.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from anyio import to_thread
from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.api import headers
from app.api.large import Limit
from app.errors import BadRequest, TooLarge, UnsupportedMediaType
from app.storage import out_of_space

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES = 2**20
# Of all fields together: a thousand large ones would take a gigabyte.
MAX_TEXT_BYTES = 4 * 2**20
MAX_PARTS = 1000
WRITE_BYTES = 2**20


@dataclass
class Part:
    """One part of a form: `body` holds its bytes, or they went to `path`."""

    name: str
    filename: str | None
    body: bytes | bytearray = b""
    path: Path | None = None
    sha256: str = ""
    size_bytes: int = 0

    def add(self, piece: bytes) -> None:
        """More of it, into memory. What comes in one piece, as most images do, is not copied again."""
        if not self.body:
            self.body = piece
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += piece

    @property
    def text(self) -> str:
        """A field's text.

        Raises:
            BadRequest: it is not UTF-8.
        """
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"expected form field {self.name!r} in UTF-8; found {error}") from error


async def _uncounted(_num_bytes: int) -> None:
    """For forms that stay in memory, which is counted where it is held."""


async def read(
    request: Request,
    limit: Limit,
    file_to: Path | None = None,
    counted: Callable[[int], Awaitable[None]] = _uncounted,
) -> list[Part]:
    """All parts of the request's form.

    Args:
        request: not yet read.
        limit: of the whole body.
        file_to: where the file part's bytes go; None keeps files in memory. One file only when set.
        counted: told how many bytes have come, for each piece; what it raises ends the reading.

    Raises:
        UnsupportedMediaType: not a multipart form.
        BadRequest: no boundary, broken off, or more than one file where one is expected.
        TooLarge: the body is larger than the limit, or a field than one may be.
        OutOfSpace: the disk is full.
    """
    kind, options = parse_options_header(headers.first(request.scope, b"content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data":
        found = kind.decode("latin-1") or "none"
        raise UnsupportedMediaType(
            f"expected a body of content type multipart/form-data; found {found}; send files with -F file=@PATH"
        )
    if not boundary:
        raise BadRequest("expected multipart/form-data with a boundary; found none; leave the header to the client")
    form = _Form(file_to)
    num_bytes = 0
    try:
        parser = MultipartParser(boundary, callbacks=form.callbacks())
        async for chunk in limited(request, limit):
            num_bytes += len(chunk)
            await counted(num_bytes)
            parser.write(chunk)
            if form.pending >= WRITE_BYTES:
                await to_thread.run_sync(form.flush)
        parser.finalize()
        if form.pending:
            await to_thread.run_sync(form.flush)
        form.close()
    except FormParserError as error:
        raise BadRequest(
            f"expected a well-formed multipart body; found {error}; send files with -F file=@PATH, and let "
            "the client write the body"
        ) from error
    except OSError as error:
        raise out_of_space(error) from error
    finally:
        form.abandon()
    if not form.complete:
        raise BadRequest("expected the form's closing boundary; found the body broken off; send it again")
    return form.parts


async def limited(request: Request, limit: Limit) -> AsyncIterator[bytes]:
    """The body's chunks.

    Raises:
        TooLarge: at once where the request announces too much; else as soon as it has come.
    """
    if (headers.body_bytes(request.scope) or 0) > limit.num_bytes:
        raise limit.refusal()
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit.num_bytes:
            raise limit.refusal()
        yield chunk


async def whole(request: Request, limit: Limit) -> bytes:
    """A body that is no form.

    Raises:
        TooLarge: it is larger than the limit.
    """
    body = bytearray()
    async for chunk in limited(request, limit):
        body += chunk
    return bytes(body)


@contextmanager
def landing(folder: Path) -> Iterator[Path]:
    """Where an upload comes in; nothing stays there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"upload-{uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Form:
    """The parser's callbacks and what they collect."""

    def __init__(self, file_to: Path | None) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._file_to = file_to
        self._file: IO[bytes] | None = None
        self._buffer = bytearray()
        self._header = b""
        self._num_text_bytes = 0
        self._headers: dict[bytes, bytes] = {}

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        return len(self._buffer)

    def callbacks(self) -> "MultipartCallbacks":
        """Under the names that the parser knows."""
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def flush(self) -> None:
        """Writes what waits, and hashes it."""
        if self._file is not None:
            self._hash.update(self._buffer)
            self._file.write(self._buffer)
            self._buffer.clear()

    def close(self) -> None:
        """Ends the file, all of which has been written."""
        if self._file is not None:
            self._file.close()
            self._file = None
            part = next(part for part in self.parts if part.path is not None)
            part.sha256 = self._hash.hexdigest()

    def abandon(self) -> None:
        """Closes a file that was broken off."""
        if self._file is not None:
            self._file.close()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        name = self._header.lower()
        self._headers[name] = self._headers.get(name, b"") + data[start:end]

    def _on_header_end(self) -> None:
        self._header = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name, filename = options.get(b"name"), options.get(b"filename")
        if name is None:
            raise BadRequest("expected a name in every part's Content-Disposition; found a part without one")
        if len(self.parts) >= MAX_PARTS:
            raise BadRequest(f"expected at most {MAX_PARTS} parts; found more")
        part = Part(name.decode(errors="replace"), None if filename is None else filename.decode(errors="replace"))
        self.parts.append(part)
        if part.filename is not None and self._file_to is not None:
            if self._file is not None or any(other.path for other in self.parts):
                raise BadRequest("expected one file; found a second one; put all images into one archive")
            part.path = self._file_to
            self._file, self._hash = self._file_to.open("wb"), hashlib.sha256()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.size_bytes += end - start
        if part.path is not None:
            self._buffer += data[start:end]
            return
        if part.filename is None:
            self._num_text_bytes += end - start
            if part.size_bytes > MAX_FIELD_BYTES:
                raise TooLarge(f"expected form field {part.name!r} of at most {MAX_FIELD_BYTES} bytes; found more")
            if self._num_text_bytes > MAX_TEXT_BYTES:
                raise TooLarge(
                    f"expected form fields of at most {MAX_TEXT_BYTES} bytes together; found more; send less"
                )
        part.add(data[start:end])

    def _on_end(self) -> None:
        self.complete = True
