"""The directory of a zip, beside what the standard library reads of it, and in how much memory."""

import io
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from worker.data.zip_directory import Archive, find

FIELDS = ("filename", "orig_filename", "flag_bits", "compress_type", "CRC", "external_attr", "file_size")
PLACES = ("compress_size", "header_offset")


def written(path: Path, before: bytes = b"", comment: bytes = b"") -> Path:
    """A zip of all that entries can have, behind other bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/1.png", "k\u00e4tzchen/\u732b.png", "a\\b.png", "empty/"):
            archive.writestr(name, name.encode() * 50)
        info = zipfile.ZipInfo("stored.png", (2020, 1, 1, 0, 0, 0))
        info.comment, info.external_attr, info.extra = b"of the member", 0o644 << 16, b"\xfe\xca\x03\0abc"
        archive.writestr(info, b"bytes", zipfile.ZIP_STORED)
        archive.comment = comment
    path.write_bytes(before + out.getvalue())
    return path


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 9])
@pytest.mark.parametrize("comment", [b"", b"of the archive"])
@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 30])  # type: ignore[attr-defined]
def test_entries_are_those_of_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, comment: bytes, limit: int
) -> None:
    """With numbers of 64 bits as well, which a low limit makes it write."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    path = written(tmp_path / "a.zip", before, comment)
    with zipfile.ZipFile(path) as archive, Archive(path) as bare:
        expected, found = archive.infolist(), list(find(path).entries())
        assert bare.infolist() == []
        for name in (*FIELDS, *PLACES):
            assert [getattr(one, name) for one in found] == [getattr(one, name) for one in expected]
        for one, other in zip(found, expected, strict=True):
            assert bare.read(one) == archive.read(other)


def test_both_answers_about_zip64_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python with CVE-2025-8291 mended says where the zip64 record is, and not where the end behind it is."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 30)
    path = written(tmp_path / "a.zip", b"before")
    data = path.read_bytes()
    expected = list(find(path).entries())
    asked = zipfile._EndRecData  # type: ignore[attr-defined]

    def other(file: BinaryIO) -> list[object]:
        end = asked(file)
        place = zipfile._ECD_LOCATION  # type: ignore[attr-defined]
        assert end[zipfile._ECD_SIGNATURE] == b"PK\x06\x06"  # type: ignore[attr-defined]
        is_old = data[end[place] :].startswith(b"PK\x05\x06")
        end[place] += -76 if is_old else 76
        return list(end)

    monkeypatch.setattr(zipfile, "_EndRecData", other)
    found = list(find(path).entries())
    assert [(one.filename, one.header_offset) for one in found] == [
        (one.filename, one.header_offset) for one in expected
    ]


def test_no_entry_reaches_into_what_follows(tmp_path: Path) -> None:
    """Of the last one ten bytes of its comment are missing, which nobody reads, or forty, and with them its name."""
    found = find(written(tmp_path / "a.zip"))
    assert len(list(replace(found, num_bytes=found.num_bytes - 10).entries())) == 5
    with pytest.raises(zipfile.BadZipFile, match="Truncated"):
        list(replace(found, num_bytes=found.num_bytes - 40).entries())


def test_a_damaged_directory_is_no_zip(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip")
    whole = path.read_bytes()
    start = find(path).start
    for bad in (whole[:start] + b"XX" + whole[start + 2 :], whole[:-30] + whole[-22:]):
        path.write_bytes(bad)
        with pytest.raises((zipfile.BadZipFile, ValueError)):
            list(find(path).entries())


def test_memory_does_not_grow_with_the_directory(tmp_path: Path) -> None:
    peaks = []
    for num in (100, 20_000):
        path = tmp_path / f"{num}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(num):
                archive.writestr(f"photos/{number:06d}.png", b"")
        tracemalloc.start()
        try:
            assert sum(1 for _ in find(path).entries()) == num
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # A ZipInfo of each would be twelve million bytes.
    assert peaks[1] < peaks[0] + 20_000
