"""Members of a zip. Its directory alone refuses most attacks, before a byte is unpacked."""

import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from worker.data.limits import Limits
from worker.data.members import CHUNK_BYTES, Budget, Member, Passed, UnreadableMember, normal, readable_name, unsafe
from worker.data.problems import Problems, Rejected

# Of a member's own header, and of its entry in the directory, without its name.
_HEADER_BYTES, _ENTRY_BYTES = 30, 46


def members(path: Path, limits: Limits, problems: Problems) -> Iterator[Member]:
    """Files in archive order; see `archives.members`."""
    budget = Budget(path, limits, problems)
    _check_size(path, limits, problems)
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
        passed = Passed(problems)
        for info, name in zip(infos, names, strict=True):
            if not info.is_dir() and name and not passed.over(name):
                share = info.header_offset / size_bytes
                yield Member(name, info.file_size, share, partial(_chunks, archive, info, name, budget))


def _check_size(path: Path, limits: Limits, problems: Problems) -> None:
    """Refuses by the size of the directory: reading a million entries takes 20 seconds and a gigabyte."""
    with path.open("rb") as file:
        # What ZipFile asks as well, the larger directories of zip64 included; None where there is no directory.
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    most = limits.max_entries
    if end and end[zipfile._ECD_SIZE] > _ENTRY_BYTES * most:  # type: ignore[attr-defined]
        num_bytes = end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
        raise problems.reject("bomb", limit=f"{most} members", found=f"a directory of {num_bytes} bytes")


def _check_directory(infos: list[zipfile.ZipInfo], budget: Budget, problems: Problems) -> list[str]:
    """Refuses by the directory alone, before a byte is unpacked; lists everything unsafe, not only the first."""
    names, is_unsafe = [], False
    for info in infos:
        budget.count_entry()
        name, was_utf8 = _name(info)
        names.append(normal(name))
        if reason := unsafe(name) or unsafe(info.orig_filename):
            problems.add("unsafe_path", name, found=reason)
            is_unsafe = True
        elif link := _link(info):
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


def _name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Many tools write UTF-8 without the flag that says so, and Windows ones write backslashes."""
    if info.flag_bits & 0x800:
        name, was_utf8 = info.filename, True
    else:
        name, was_utf8 = readable_name(info.filename.encode("cp437"))
    return name.replace("\\", "/"), was_utf8


def _link(info: zipfile.ZipInfo) -> str | None:
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
        end = info.header_offset + _HEADER_BYTES + len(info.orig_filename) + info.compress_size
        previous = info.filename


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, budget: Budget) -> Iterator[bytes]:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # Python unpacks the other methods without a bound on memory.
        raise UnreadableMember(f"compression method {info.compress_type}; pack it with deflate")
    try:
        with archive.open(info) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield budget.count(chunk, path)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UnreadableMember(str(error)) from error
