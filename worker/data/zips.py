"""Members of a zip. Its directory alone refuses most attacks, before a byte is unpacked."""

import errno
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from worker.data.limits import Limits
from worker.data.members import CHUNK_BYTES, Budget, Member, Passed, UnreadableMember, normal, readable_name, unsafe
from worker.data.problems import Problems, Rejected
from worker.data.zip_directory import ENTRY_BYTES, Archive, Directory, find

# Of a member's own header, without its name.
_HEADER_BYTES = 30


def members(path: Path, limits: Limits, problems: Problems) -> Iterator[Member]:
    """Files in archive order; see `archives.members`."""
    budget = Budget(path, limits, problems)
    try:
        directory = find(path)
        _check_size(directory, limits, problems)
        _check_directory(directory, budget, problems)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise problems.reject("not_an_archive", found=f"a zip that is damaged or was cut short ({error})") from error
    size_bytes = path.stat().st_size
    passed = Passed(problems)
    with Archive(path) as archive:
        for info in directory.entries():
            name = normal(_name(info)[0])
            if not _is_folder(info) and name and not passed.over(name):
                share = info.header_offset / size_bytes
                yield Member(name, info.file_size, share, partial(_chunks, archive, info, name, budget))


def _check_size(directory: Directory, limits: Limits, problems: Problems) -> None:
    """Refuses by the size of the directory: reading a million entries takes 20 seconds."""
    most = limits.max_entries
    if directory.num_bytes > ENTRY_BYTES * most:
        found = f"a directory of {directory.num_bytes} bytes"
        raise problems.reject("bomb", limit=f"{most} members", found=found)


def _check_directory(directory: Directory, budget: Budget, problems: Problems) -> None:
    """Refuses by the directory alone, before a byte is unpacked; lists everything unsafe, not only the first."""
    num_files, num_bytes, end, is_unsafe, in_order = 0, 0, 0, False, True
    for info in directory.entries():
        budget.count_entry()
        num_files += not _is_folder(info)
        num_bytes += info.file_size
        is_unsafe |= _is_unsafe(info, problems)
        in_order &= info.header_offset >= end
        end = _end(info)
    if is_unsafe:
        raise Rejected("unsafe")
    budget.check(num_bytes)
    if not in_order:
        _check_overlap(directory, problems)
    if not num_files:
        raise problems.reject("empty_archive")


def _is_folder(info: zipfile.ZipInfo) -> bool:
    """As `is_dir`, which some versions cannot be asked of an empty name."""
    return info.filename.endswith("/")


def _is_unsafe(info: zipfile.ZipInfo, problems: Problems) -> bool:
    name, was_utf8 = _name(info)
    if reason := unsafe(name) or unsafe(info.orig_filename):
        problems.add("unsafe_path", name, found=reason)
    elif link := _link(info):
        problems.add("unsafe_link", name, found=link)
    elif info.flag_bits & 1:
        problems.add("encrypted", name)
    else:
        if not was_utf8:
            problems.add("name_encoding", name)
        return False
    return True


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


def _end(info: zipfile.ZipInfo) -> int:
    """At least so far a member reaches: its own header may hold more."""
    return info.header_offset + _HEADER_BYTES + len(info.orig_filename) + info.compress_size


def _check_overlap(directory: Directory, problems: Problems) -> None:
    """Members that share compressed bytes are how a small zip holds petabytes; most zips have them in order."""
    end, previous = 0, ""
    for start, its_end, name in sorted((one.header_offset, _end(one), one.filename) for one in directory.entries()):
        if start < end:
            raise problems.reject(
                "bomb", name, limit="one member in each place", found=f"one that overlaps with {previous!r}"
            )
        end, previous = its_end, name


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, budget: Budget) -> Iterator[bytes]:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # Python unpacks the other methods without a bound on memory.
        raise UnreadableMember(f"compression method {info.compress_type}; pack it with deflate")
    try:
        with archive.open(info) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield budget.count(chunk, path)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, OverflowError) as error:
        raise UnreadableMember(str(error)) from error
    except OSError as error:
        # A place that no file has. Anything else is about the disk, and not about the member.
        if error.errno != errno.EINVAL:
            raise
        raise UnreadableMember(f"a member at byte {info.header_offset}") from error
