"""The directory of a zip, entry by entry: `zipfile` would hold 600 bytes for each of up to a million of them.

The layout is that of APPNOTE.TXT of PKWARE, sections 4.3.12 (entries) and 4.5.3 (zip64).
"""

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from os import SEEK_CUR
from pathlib import Path
from typing import BinaryIO

# Of an entry without its name.
ENTRY_BYTES = 46
_ENTRY = struct.Struct("<4s4B4H3I5H2I")
_FIELD = struct.Struct("<2H")
_MAGIC, _END, _ZIP64_END = b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06"
# What stands for a number that does not fit: the number is in the extra field of zip64.
_ELSEWHERE, _ZIP64_FIELD = 0xFFFF_FFFF, 1
# Of the two records that zip64 puts between directory and end.
_ZIP64_BYTES = 56 + 20
_UTF8_FLAG = 0x800
_NEWEST_VERSION = 63
_BUFFER_BYTES = 2**16


class Archive(zipfile.ZipFile):
    """Opens members by entries that the caller has; its own list of them stays empty.

    Some versions note in that list where each member has to end. Without it, whoever looks through the directory has to
    see that no two overlap.
    """

    def _RealGetContents(self) -> None:
        """With this `zipfile` reads the directory. Under another name it would be read, and take its memory."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the directory of a zip lies.

    Args:
        path: of the zip.
        start: its offset in the file.
        num_bytes: its length.
        num_before: bytes of the file before the zip, which its offsets do not count.
    """

    path: Path
    start: int
    num_bytes: int
    num_before: int

    def entries(self) -> Iterator[zipfile.ZipInfo]:
        """Every entry in order, read anew each time.

        Raises:
            BadZipFile, ValueError, NotImplementedError: it is damaged, or of a later version of the format.
        """
        if self.start < 0:
            raise zipfile.BadZipFile("Bad offset for central directory")
        end = self.start + self.num_bytes
        with self.path.open("rb", buffering=_BUFFER_BYTES) as file:
            file.seek(self.start)
            while file.tell() < end:
                info = _entry(file, end)
                info.header_offset += self.num_before
                yield info


def find(path: Path) -> Directory:
    """The directory of a zip.

    Raises:
        BadZipFile: there is none.
    """
    with path.open("rb") as file:
        try:
            # What ZipFile asks as well, the larger directories of zip64 included; None where there is no directory.
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        except OSError as error:
            raise zipfile.BadZipFile("File is not a zip file") from error
        if not end:
            raise zipfile.BadZipFile("File is not a zip file")
        num_bytes, offset = end[zipfile._ECD_SIZE], end[zipfile._ECD_OFFSET]  # type: ignore[attr-defined]
        place = end[zipfile._ECD_LOCATION]  # type: ignore[attr-defined]
        file.seek(place)
        # Since CVE-2025-8291 was mended this is the place of the zip64 record; before, of the end behind it.
        if end[zipfile._ECD_SIGNATURE] == _ZIP64_END and file.read(4) == _END:  # type: ignore[attr-defined]
            place -= _ZIP64_BYTES
    start = place - num_bytes
    return Directory(path, start, num_bytes, start - offset)


def _entry(file: BinaryIO, end: int) -> zipfile.ZipInfo:
    magic, *versions, flags, method, _, _, crc, packed, size, name, extra, comment, _, _, mode, offset = _ENTRY.unpack(
        _read(file, ENTRY_BYTES, end)
    )
    if magic != _MAGIC:
        raise zipfile.BadZipFile("Bad magic number for central directory")
    if versions[2] > _NEWEST_VERSION:
        raise NotImplementedError(f"zip file version {versions[2] / 10:.1f}")
    info = zipfile.ZipInfo(_read(file, name, end).decode("utf-8" if flags & _UTF8_FLAG else "cp437"))
    info.flag_bits, info.compress_type, info.CRC, info.external_attr = flags, method, crc, mode
    info.file_size, info.compress_size, info.header_offset = _sizes((size, packed, offset), _read(file, extra, end))
    if comment:
        file.seek(comment, SEEK_CUR)
    return info


def _sizes(numbers: tuple[int, int, int], extra: bytes) -> tuple[int, ...]:
    """The numbers; those that do not fit are in the extra field, in this order, where there is one."""
    if _ELSEWHERE not in numbers or (large := _zip64_field(extra)) is None:
        return numbers
    num_large = numbers.count(_ELSEWHERE)
    if len(large) < 8 * num_large:
        raise zipfile.BadZipFile("Corrupt zip64 extra field")
    found = iter(struct.unpack_from(f"<{num_large}Q", large))
    return tuple(next(found) if number == _ELSEWHERE else number for number in numbers)


def _zip64_field(extra: bytes) -> bytes | None:
    """What the extra field of zip64 holds; None where there is none. Other fields are nobody's here."""
    while len(extra) >= _FIELD.size:
        kind, num_bytes = _FIELD.unpack_from(extra)
        if _FIELD.size + num_bytes > len(extra):
            raise zipfile.BadZipFile(f"Corrupt extra field {kind:04x} (size={num_bytes})")
        if kind == _ZIP64_FIELD:
            return extra[_FIELD.size : _FIELD.size + num_bytes]
        extra = extra[_FIELD.size + num_bytes :]
    return None


def _read(file: BinaryIO, num_bytes: int, end: int) -> bytes:
    """So many bytes of the directory, which reaches to `end`."""
    data = file.read(num_bytes)
    if len(data) != num_bytes or file.tell() > end:
        raise zipfile.BadZipFile("Truncated central directory")
    return data
