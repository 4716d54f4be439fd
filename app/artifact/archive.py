"""Bundles as zip archives: written as a stream, the same bytes each time; read as a stranger's, by known names.

A reader that wants a few files of known names needs no rules for paths, links or folders: an archive that has anything
else is refused by its directory, before a byte is unpacked. The directory's own size is looked at before it is read.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path

from app.errors import BadRequest

# The same bytes each time: a zip would else carry the moment that it was made.
EPOCH = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 2**20
# Larger archives have a second directory, which would be a second truth.
MAX_BYTES = 2**32 - 1
MAX_DIRECTORY_BYTES = 2**16
MAX_RATIO = 100.0
# Small files may compress any amount.
RATIO_FLOOR_BYTES = 64 * 2**20
_END = struct.Struct("<4s4H2LH")
_END_MARK, _BEGIN_MARK, _LARGE_MARK = b"PK\x05\x06", b"PK\x03\x04", b"PK\x06\x07"
_LARGE_BYTES, _HEADER_BYTES = 20, 30
_ENCRYPTED = 1


class _Sink:
    """Collects what the archive writes, to be taken away piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        """As of a file that cannot go back."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def stream(files: Mapping[str, bytes | Path]) -> Generator[bytes]:
    """A zip of the files in their order, piece by piece: memory holds one. Equal files give equal bytes.

    Weights do not get smaller by deflating them, so nothing is.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            # Told ahead, so that only a file that needs the format's extension gets it.
            entry.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
            with archive.open(entry, "w") as member:
                for chunk in _chunks(content):
                    member.write(chunk)
                    yield sink.take()
    yield sink.take()


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def unpack(path: Path, folder: Path, names: Collection[str]) -> list[str]:
    """A stranger's zip -> files of those names in the folder.

    Args:
        path: of the archive.
        folder: empty.
        names: that its members may have; all else is refused.

    Returns:
        the names that it has.

    Raises:
        BadRequest: code not_an_archive; bundle_too_large, it holds more than it may; bundle_unsafe, a member that is no
            plain file of a known name, or two in one place.
    """
    _check_end(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(members, path.stat().st_size, names)
            for member in members:
                _write(archive, member, folder / member.filename)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, OverflowError, EOFError) as error:
        raise BadRequest(
            f"expected a whole zip archive; found {_plain(error)}; download the bundle again", code="not_an_archive"
        ) from error
    return [member.filename for member in members]


def _check_end(path: Path) -> None:
    """The last bytes say how large the directory is; nobody reads one that does not fit a bundle."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size_bytes - _END.size - _LARGE_BYTES))
        tail = file.read()
    end = tail[-_END.size :]
    if head != _BEGIN_MARK or len(end) < _END.size or not end.startswith(_END_MARK):
        raise BadRequest(
            f"expected a bundle as a zip archive without a comment; found {size_bytes} bytes that are none; download "
            "it with GET .../versions/N/bundle",
            code="not_an_archive",
        )
    _, _, _, _, _, directory_bytes, _, comment_bytes = _END.unpack(end)
    if comment_bytes or tail.startswith(_LARGE_MARK) or directory_bytes > MAX_DIRECTORY_BYTES:
        raise BadRequest(
            f"expected a zip archive with a directory of at most {MAX_DIRECTORY_BYTES} bytes and no extensions; found "
            f"{directory_bytes}; send the bundle as it was downloaded",
            code="bundle_unsafe",
        )


def _check(members: list[zipfile.ZipInfo], archive_bytes: int, names: Collection[str]) -> None:
    wrong = [f"{_plain(member.orig_filename)} ({words})" for member in members if (words := _unfit(member, names))]
    wrong += [f"{name} (twice)" for name in sorted(_twice(members))]
    if wrong:
        raise BadRequest(
            f"expected files of a bundle only ({', '.join(sorted(names))}); found {'; '.join(wrong[:10])}; send the "
            "bundle as it was downloaded",
            code="bundle_unsafe",
        )
    total = sum(member.file_size for member in members)
    limit = min(MAX_BYTES, max(RATIO_FLOOR_BYTES, int(MAX_RATIO * archive_bytes)))
    if total > limit:
        raise BadRequest(
            f"expected a bundle of at most {limit} bytes once unpacked; found {total}; send a smaller model",
            code="bundle_too_large",
        )
    end = 0
    for member in sorted(members, key=lambda one: one.header_offset):
        # Members that share compressed bytes are how a small zip holds petabytes.
        if member.header_offset < end:
            raise BadRequest(
                f"expected one file in each place; found {member.filename} over another one; download the bundle again",
                code="bundle_unsafe",
            )
        end = member.header_offset + _HEADER_BYTES + len(member.orig_filename) + member.compress_size


def _unfit(member: zipfile.ZipInfo, names: Collection[str]) -> str | None:
    """Why a member cannot be a bundle's file; None where it can."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.orig_filename not in names or member.filename != member.orig_filename:
        return "no file of a bundle"
    if kind not in (0, stat.S_IFREG):
        return "a link or another special file"
    if member.flag_bits & _ENCRYPTED:
        return "encrypted"
    # Python unpacks the other methods without a bound on memory.
    known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return None if known else f"compression method {member.compress_type}"


def _twice(members: list[zipfile.ZipInfo]) -> set[str]:
    names = [member.filename for member in members]
    return {name for name in names if names.count(name) > 1}


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """No more bytes than the directory says come out; their checksum and number tell when it lied."""
    with archive.open(member) as source, path.open("xb") as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)
        if target.tell() != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename} with other bytes than its directory says")


def _plain(text: object) -> str:
    """A stranger's words, short, in printable characters."""
    return ascii(str(text))[:120]
