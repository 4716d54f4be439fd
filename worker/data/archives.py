"""Members of an untrusted archive, as streams. Nothing is ever extracted: names are text, never paths of this machine.

The kind is sniffed from the content. Names that point outside, links, devices, encryption, overlapping members and bombs refuse the whole
upload; a member that does not unpack costs only itself. Sizes are counted while reading, since a header may lie.
"""

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

from worker.data.limits import Limits
from worker.data.problems import Problems, Rejected

Kind = Literal["zip", "tar", "parquet"]

RATIO_FLOOR_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
# What may stand between two members of a tar: long names and extended headers, which tarfile reads into memory whole.
_TAR_HEADER_BYTES = 2**20
_TAR_BUFFER_BYTES = 2**16
_TAR_ERRORS = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
_JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_DRIVE = re.compile(r"^[A-Za-z]:")
_KNOWN = {b"%PDF": "a PDF", b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"\xfd7zX": "an xz file", b"BZh": "a bzip2 file"}
_IMAGES = {b"\xff\xd8\xff": "a JPEG image", b"\x89PNG": "a PNG image", b"GIF8": "a GIF image", b"RIFF": "a WEBP image or other RIFF file"}


class UnreadableMember(Exception):
    """One member does not unpack; the others may."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its name, the share of the archive that lies before it, and what streams its content.

    `chunks` must be used before the next member is asked for. It raises UnreadableMember, or Rejected for a bomb.
    """

    path: str
    size_bytes: int
    share_before: float
    chunks: Callable[[], Iterator[bytes]]


def sniff(path: Path, problems: Problems) -> Kind:
    """What the upload is, by its content.

    Raises:
        Rejected: no archive (not_an_archive), or an empty file (empty_archive).
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise problems.reject("not_an_archive", found="an empty file")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar" or _is_old_tar(path):
        return "tar"
    raise problems.reject("not_an_archive", found=_describe(head))


def members(path: Path, kind: Kind, limits: Limits, problems: Problems) -> Iterator[Member]:
    """Files of a zip or tar in archive order, without folders, hidden files and what systems leave behind.

    Raises:
        Rejected: the archive is broken, unsafe, encrypted or a bomb.
    """
    return _zip_members(path, limits, problems) if kind == "zip" else _tar_members(path, limits, problems)


def readable_name(raw: bytes) -> tuple[str, bool]:
    """A name as text, and whether it was UTF-8; else it is read as code page 437, as zip prescribes and which never fails."""
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode("cp437"), False


def unsafe(name: str) -> str | None:
    """Why a member's name could reach outside, or None."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" and len(parts) > 1:
        return f"an absolute path, {name!r}"
    if _DRIVE.match(name):
        return f"a drive letter, {name!r}"
    if ".." in parts:
        return f"'..' in {name!r}"
    if "\0" in name:
        return f"a NUL character in {name!r}"
    return None


def is_junk(name: str) -> bool:
    """Hidden files and what operating systems leave in archives."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in name.split("/"))


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in {"", "."})


class _Budget:
    """Counts what really came out of the archive against the limits."""

    def __init__(self, path: Path, limits: Limits, problems: Problems) -> None:
        self._ratio_bytes = max(RATIO_FLOOR_BYTES, int(limits.max_ratio * path.stat().st_size))
        self._limits, self._problems = limits, problems
        self._num_entries, self._num_bytes = 0, 0

    def count_entry(self) -> None:
        self._num_entries += 1
        if self._num_entries > self._limits.max_entries:
            limit = f"{self._limits.max_entries} members"
            raise self._problems.reject("bomb", limit=limit, found=f"more than {self._limits.max_entries}")

    def check(self, num_bytes: int, path: str = "") -> None:
        """Refuses when the archive would hold `num_bytes` more."""
        total = self._num_bytes + num_bytes
        if total > self._limits.max_total_bytes:
            raise self._problems.reject(
                "bomb", path, limit=f"{self._limits.max_total_bytes} bytes uncompressed", found=f"at least {total}"
            )
        if total > self._ratio_bytes:
            raise self._problems.reject(
                "bomb",
                path,
                limit=f"{self._limits.max_ratio:g} times the archive's size once unpacked",
                found=f"at least {total} bytes",
            )

    def count(self, chunk: bytes, path: str) -> bytes:
        self.check(len(chunk), path)
        self._num_bytes += len(chunk)
        return chunk


def _is_old_tar(path: Path) -> bool:
    """A tar from before `ustar`: only its checksum tells."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


def _describe(head: bytes) -> str:
    for magic, what in _KNOWN.items():
        if head.startswith(magic):
            return what
    for magic, what in _IMAGES.items():
        if head.startswith(magic):
            return f"{what} on its own"
    try:
        return f"text that starts with {head[:40].decode()!r}"
    except UnicodeDecodeError:
        return f"a file that starts with {head[:8].hex(' ')}"


# Zip


def _zip_members(path: Path, limits: Limits, problems: Problems) -> Iterator[Member]:
    budget = _Budget(path, limits, problems)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise problems.reject("not_an_archive", found=f"a zip that is damaged or was cut short ({error})") from error
    size_bytes = path.stat().st_size
    with archive:
        infos = archive.infolist()
        names = _check_directory(infos, budget, problems)
        if all(info.is_dir() for info in infos):
            raise problems.reject("empty_archive")
        for info, name in zip(infos, names, strict=True):
            if not info.is_dir() and name and not is_junk(name):
                share = info.header_offset / size_bytes
                yield Member(name, info.file_size, share, partial(_zip_chunks, archive, info, name, budget))


def _check_directory(infos: list[zipfile.ZipInfo], budget: _Budget, problems: Problems) -> list[str]:
    """Refuses by the directory alone, before a byte is unpacked; lists everything unsafe, not only the first."""
    names, is_unsafe = [], False
    for info in infos:
        budget.count_entry()
        name, was_utf8 = _zip_name(info)
        names.append(_normal(name))
        if reason := unsafe(name) or unsafe(info.orig_filename):
            problems.add("unsafe_path", name, found=reason)
            is_unsafe = True
        elif link := _zip_link(info):
            problems.add("unsafe_link", name, found=link)
            is_unsafe = True
        elif info.flag_bits & 1:
            problems.add("encrypted", name)
            is_unsafe = True
        elif not was_utf8:
            problems.add("name_encoding", name)
    if is_unsafe:
        raise Rejected("unsafe")
    budget.check(sum(info.file_size for info in infos))
    _check_overlap(infos, problems)
    return names


def _zip_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Many tools write UTF-8 without the flag that says so, and Windows ones write backslashes."""
    if info.flag_bits & 0x800:
        name, was_utf8 = info.filename, True
    else:
        name, was_utf8 = readable_name(info.filename.encode("cp437"))
    return name.replace("\\", "/"), was_utf8


def _zip_link(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) in {0, stat.S_IFREG, stat.S_IFDIR}:
        return None
    return "a symbolic link" if stat.S_ISLNK(mode) else "a device or another special file"


def _check_overlap(infos: list[zipfile.ZipInfo], problems: Problems) -> None:
    """Members that share compressed bytes are how a small zip holds petabytes."""
    end, previous = 0, ""
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise problems.reject(
                "bomb", info.filename, limit="one member in each place", found=f"one that overlaps with {previous!r}"
            )
        end = info.header_offset + zipfile.sizeFileHeader + len(info.orig_filename) + info.compress_size
        previous = info.filename


def _zip_chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, budget: _Budget) -> Iterator[bytes]:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # Python unpacks the other methods without a bound on memory.
        raise UnreadableMember(f"compression method {info.compress_type}; pack it with deflate")
    try:
        with archive.open(info) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield budget.count(chunk, path)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UnreadableMember(str(error)) from error


# Tar


class _Counting:
    """A file that ends the reading once more came out than the members found so far explain."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._position = file, 0
        self.ceiling = _TAR_HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._position += len(data)
        if self._position > self.ceiling + _TAR_BUFFER_BYTES:
            raise tarfile.ReadError(f"a header of more than {_TAR_HEADER_BYTES} bytes")
        return data


def _tar_members(path: Path, limits: Limits, problems: Problems) -> Iterator[Member]:
    budget, num_files, is_unsafe = _Budget(path, limits, problems), 0, False
    size_bytes = path.stat().st_size
    with path.open("rb") as plain:
        is_gzip = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        counting = _Counting(gzip.GzipFile(fileobj=plain) if is_gzip else plain)
        try:
            tar = tarfile.open(  # noqa: SIM115 - closing it would only close the stream that is ours
                fileobj=counting, mode="r|", bufsize=_TAR_BUFFER_BYTES, encoding="utf-8", errors="surrogateescape"
            )
            for info in _tar_headers(tar, counting):
                budget.count_entry()
                name, was_utf8 = readable_name(info.name.encode("utf-8", "surrogateescape"))
                if reason := unsafe(name):
                    problems.add("unsafe_path", name, found=reason)
                    is_unsafe = True
                elif not (info.isreg() or info.isdir()):
                    problems.add("unsafe_link", name, found=_tar_kind(info))
                    is_unsafe = True
                elif not was_utf8:
                    problems.add("name_encoding", name)
                num_files += info.isreg()
                name = _normal(name)
                # Nothing is unpacked any more once one member is unsafe, but every such member is listed.
                if not is_unsafe and info.isreg() and name and not is_junk(name):
                    yield Member(name, info.size, plain.tell() / size_bytes, partial(_tar_chunks, tar, info, name, budget, problems))
        except (*_TAR_ERRORS, UnicodeError) as error:
            raise _broken_tar(problems, is_gzip, error) from error
    if is_unsafe:
        raise Rejected("unsafe")
    if not num_files:
        raise problems.reject("empty_archive")


def _tar_headers(tar: tarfile.TarFile, counting: _Counting) -> Iterator[tarfile.TarInfo]:
    """Headers in order. `TarFile.next` would take a damaged header for the end, and keep every member in memory."""
    info = tar.next()
    while info is not None:
        tar.members.clear()
        counting.ceiling = tar.offset + _TAR_HEADER_BYTES
        yield info
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        try:
            info = tarfile.TarInfo.fromtarfile(tar)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):
            return


def _tar_chunks(
    tar: tarfile.TarFile, info: tarfile.TarInfo, path: str, budget: _Budget, problems: Problems
) -> Iterator[bytes]:
    try:
        file = tar.extractfile(info)
        assert file is not None
        while chunk := file.read(CHUNK_BYTES):
            yield budget.count(chunk, path)
    except _TAR_ERRORS as error:
        # In a stream there is nothing behind a damaged place.
        raise _broken_tar(problems, False, error) from error


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    return "a hard link" if info.islnk() else "a device or another special file"


def _broken_tar(problems: Problems, is_gzip: bool, error: Exception) -> Rejected:
    what = "a tar.gz" if is_gzip else "a tar"
    return problems.reject("not_an_archive", found=f"{what} that is damaged or was cut short ({error})")
