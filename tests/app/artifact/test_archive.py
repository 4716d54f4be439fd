"""Zips as they are written, and the ways in which a stranger's is none."""

import io
import struct
import zipfile

import pytest

from app.artifact import archive
from app.errors import BadRequest

FILES = {"a.txt": b"first", "b.bin": bytes(range(256)) * 8000, "c": b""}


def written(files=FILES):
    return b"".join(archive.stream(files))


def unpack(tmp_path, data, names=tuple(FILES)):
    (tmp_path / "a.zip").write_bytes(data)
    folder = tmp_path / "out"
    folder.mkdir()
    return archive.unpack(tmp_path / "a.zip", folder, names)


def test_what_is_written_is_read_again_and_the_same_each_time(tmp_path):
    path = tmp_path / "b"
    path.write_bytes(FILES["b.bin"])
    data = written({**FILES, "b.bin": path})
    assert data == written()
    assert unpack(tmp_path, data) == list(FILES)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES
    with zipfile.ZipFile(io.BytesIO(data)) as other:
        assert other.testzip() is None


def test_pieces_are_small_however_large_the_file(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(20 * archive.CHUNK_BYTES)
    assert max(map(len, archive.stream({"a": path}))) < 2 * archive.CHUNK_BYTES


def refused(tmp_path, data, code, words):
    with pytest.raises(BadRequest, match=words) as caught:
        unpack(tmp_path, data)
    assert caught.value.code == code
    assert not list((tmp_path / "out").iterdir())


def test_a_directory_that_is_too_large_is_not_read(tmp_path):
    data = bytearray(written())
    struct.pack_into("<L", data, len(data) - 10, archive.MAX_DIRECTORY_BYTES + 1)
    refused(tmp_path, bytes(data), "bundle_unsafe", "directory of at most")


def test_a_second_directory_is_not_read(tmp_path):
    data = written()
    refused(tmp_path, data[:-22] + b"PK\x06\x07" + b"\0" * 16 + data[-22:], "bundle_unsafe", "no extensions")


def test_members_in_one_place_are_refused(tmp_path):
    data = bytearray(written())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    struct.pack_into("<L", data, second + 42, 0)
    refused(tmp_path, bytes(data), "bundle_unsafe", "one file in each place")


def test_other_compressions_are_refused(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a.txt", b"first")
    refused(tmp_path, out.getvalue(), "bundle_unsafe", "compression method 14")


def test_encrypted_members_are_refused(tmp_path):
    data = bytearray(written({"a.txt": b"first"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    refused(tmp_path, bytes(data), "bundle_unsafe", "encrypted")
