"""All members of an upload, one after another in one scratch file.

The archive is read once, front to back (a tar.gz knows no other way); what the decoders checked is what the shards
get, byte for byte.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a member lies in the spool, and its sha256."""

    offset: int
    length: int
    sha256: bytes


class Appender:
    """Writes members behind each other, from `end` on."""

    def __init__(self, fd: int, end: int) -> None:
        self._fd, self.end = fd, end

    def append(self, chunks: Iterable[bytes]) -> Stored:
        """Writes one member. When `chunks` raises, what was written is forgotten and the next member overwrites it."""
        digest, start, end = hashlib.sha256(), self.end, self.end
        for chunk in chunks:
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                written = os.pwrite(self._fd, view, end)
                end += written
                view = view[written:]
        self.end = end
        return Stored(start, end - start, digest.digest())


class Spool:
    """An append-only scratch file, removed on exit.

    Raises:
        OSError: the disk is full (ENOSPC); the caller's dataset has nothing stored yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.out_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._appender = Appender(self.out_fd, 0)

    @property
    def end(self) -> int:
        """Where the next member goes."""
        return self._appender.end

    def append(self, chunks: Iterable[bytes]) -> Stored:
        """Writes one member. When `chunks` raises, what was written is forgotten and the next member overwrites it."""
        return self._appender.append(chunks)

    def holds(self, stored: Stored) -> bool:
        """Whether the file has that many bytes; the process that says so may have been taken over by its input."""
        return stored.offset >= 0 <= stored.length and stored.offset + stored.length <= os.fstat(self.fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of one member."""
        return os.pread(self.fd, length, offset)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills `buffer` from `offset` on.

        Raises:
            EOFError: the spool ends before the buffer is full.
        """
        while buffer:
            count = os.preadv(self.fd, [buffer], offset)
            if not count:
                raise EOFError(f"expected {len(buffer)} more bytes in the spool at {offset}; found its end")
            buffer, offset = buffer[count:], offset + count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.out_fd)
        os.close(self.fd)
        self._path.unlink()
