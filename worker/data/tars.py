"""Members of a tar or tar.gz, in one pass: what lies behind a damaged place cannot be had."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from worker.data.limits import Limits
from worker.data.members import CHUNK_BYTES, Budget, Member, Passed, normal, readable_name, unsafe
from worker.data.problems import Problems, Rejected

# What may stand between two members: long names and extended headers, which tarfile reads into memory whole.
_HEADER_BYTES = 2**20
_BUFFER_BYTES = 2**16
_ENDS = (tarfile.EOFHeaderError, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
_ERRORS = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


class _Counting:
    """A file that ends the reading once more came out than the members found so far explain."""

    def __init__(self, file: gzip.GzipFile | BinaryIO) -> None:
        self._file, self._position = file, 0
        self.ceiling = _HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._position += len(data)
        if self._position > self.ceiling + _BUFFER_BYTES:
            raise tarfile.ReadError(f"a header of more than {_HEADER_BYTES} bytes")
        return data


def is_old(path: Path) -> bool:
    """Whether it is a tar from before `ustar`: only its checksum tells."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


def members(path: Path, limits: Limits, problems: Problems) -> Iterator[Member]:
    """Files in archive order; see `archives.members`."""
    budget, num_files, is_unsafe = Budget(path, limits, problems), 0, False
    size_bytes = path.stat().st_size
    with path.open("rb") as plain:
        is_gzip = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        counting = _Counting(gzip.GzipFile(fileobj=plain) if is_gzip else plain)
        try:
            # Closing it would only close what is ours.
            tar = tarfile.open(  # noqa: SIM115
                fileobj=cast(BinaryIO, counting),
                mode="r|",
                bufsize=_BUFFER_BYTES,
                encoding="utf-8",
                errors="surrogateescape",
            )
            passed = Passed(problems)
            for info in _headers(tar, counting):
                budget.count_entry()
                # With what says its name, which may be any number of times as long as what it was packed to.
                budget.count_bytes(info.offset_data - info.offset, info.name)
                name, was_utf8 = readable_name(info.name.encode("utf-8", "surrogateescape"))
                if reason := unsafe(name):
                    problems.add("unsafe_path", name, found=reason)
                    is_unsafe = True
                elif not (info.isreg() or info.isdir()):
                    problems.add("unsafe_link", name, found=_kind(info))
                    is_unsafe = True
                elif not was_utf8:
                    problems.add("name_encoding", name)
                num_files += info.isreg()
                name = normal(name)
                # Nothing is unpacked any more once one member is unsafe, but every such member is listed.
                if not is_unsafe and info.isreg() and name and not passed.over(name):
                    yield Member(
                        name,
                        info.size,
                        plain.tell() / size_bytes,
                        partial(_chunks, tar, info, name, budget, problems),
                    )
        except (*_ERRORS, UnicodeError) as error:
            raise _broken(problems, is_gzip, error) from error
    if is_unsafe:
        raise Rejected("unsafe")
    if not num_files:
        raise problems.reject("empty_archive")


def _headers(tar: tarfile.TarFile, counting: _Counting) -> Iterator[tarfile.TarInfo]:
    """Headers in order. `TarFile.next` would take a damaged header for the end, and keep every member in memory."""
    info = tar.next()
    while info is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        counting.ceiling = tar.offset + _HEADER_BYTES
        yield info
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        try:
            info = tarfile.TarInfo.fromtarfile(tar)
        except _ENDS:
            return


def _chunks(
    tar: tarfile.TarFile, info: tarfile.TarInfo, path: str, budget: Budget, problems: Problems
) -> Iterator[bytes]:
    try:
        file = tar.extractfile(info)
        assert file is not None
        while chunk := file.read(CHUNK_BYTES):
            yield budget.count(chunk, path)
    except _ERRORS as error:
        # In a stream there is nothing behind a damaged place.
        raise _broken(problems, False, error) from error


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    return "a hard link" if info.islnk() else "a device or another special file"


def _broken(problems: Problems, is_gzip: bool, error: Exception) -> Rejected:
    what = "a tar.gz" if is_gzip else "a tar"
    return problems.reject("not_an_archive", found=f"{what} that is damaged or was cut short ({error})")
