"""Uploads that must be refused: the code of the problem, and the bytes, or the files of a zip.

Whatever else is wrong with data, and no attack, is in tests/worker/data/test_ingest.py.
"""

import gzip
import io
import json
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests import factories

JPG = factories.png()
RED, BLUE = factories.COLOURS["red"], factories.COLOURS["blue"]
GOOD = factories.pictures(2, {"cat": RED, "dog": BLUE})
# A manifest's row that finds its picture, so that only the other row can be what is refused.
ROW = b"cat/0.png,cat\n"
DIRECTORY, MEMBER, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
Upload = bytes | dict[str, bytes]
Make = Callable[[], Upload]


def deflated(files: dict[str, bytes]) -> bytes:
    """A zip that packs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def packed(upload: Upload) -> bytes:
    """What is sent."""
    return deflated(upload) if isinstance(upload, dict) else upload


def tar_of(files: dict[str, Any], mode: str = "w", style: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of contents, or of headers without one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=style) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name) if isinstance(content, bytes) else content
            if isinstance(content, bytes):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def special(kind: bytes, **fields: Any) -> bytes:
    """A tar with something that is no file."""
    info = tarfile.TarInfo("cat/link.png")
    info.type, info.linkname = kind, "/etc/passwd"
    for name, value in fields.items():
        setattr(info, name, value)
    return tar_of({**GOOD, "link": info})


def zip_special(kind: int) -> bytes:
    """The same in a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in GOOD.items():
            archive.writestr(name, data)
        info = zipfile.ZipInfo("cat/link.png")
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def patched(files: dict[str, bytes], offset: int, value: int) -> bytes:
    """A zip with bits set at `offset` in every member's entry of the directory and its own header."""
    data = bytearray(deflated(files))
    for magic, shift in ((DIRECTORY, 2), (MEMBER, 0)):
        start = data.find(magic)
        while start >= 0:
            data[start + offset + shift] |= value
            start = data.find(magic, start + 4)
    return bytes(data)


def overlapping() -> bytes:
    """Two entries of the directory that share one place, as in a zip of petabytes."""
    data = bytearray(deflated({"a/1.png": JPG, "a/2.png": factories.png(seed=2)}))
    first = data.find(DIRECTORY)
    second = data.find(DIRECTORY, first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


def lying(size_bytes: int, unpacked: int = 5_000_000) -> bytes:
    """The directory gives the first member another size than it unpacks to."""
    data = bytearray(deflated({"cat/0.png": bytes(unpacked), **{f"cat/{n}.png": b"no" for n in (1, 2)}}))
    struct.pack_into("<L", data, data.find(DIRECTORY) + 24, size_bytes)
    return bytes(data)


def counting(num_entries: int) -> bytes:
    """A directory that says it has other numbers of members than are there."""
    data = bytearray(deflated(GOOD))
    place = data.rfind(END)
    struct.pack_into("<HHL", data, place + 8, num_entries, num_entries, 2**31)
    return bytes(data)


def nested(depth: int) -> bytes:
    """Zips within zips."""
    data = deflated({f"{name}/{n}.png": bytes(10**6) for name in ("cat", "dog") for n in range(2)})
    for _ in range(depth):
        data = deflated({"cat/0.zip": data, "dog/0.zip": data})
    return data


def crowded(num: int) -> bytes:
    """A directory of a million names in a few bytes each, all of them for nothing."""
    entry = struct.pack("<4s6H3L5H2L", DIRECTORY, 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, len(entry) * num, 0, 0)
    return MEMBER + entry * num + end


def sparse() -> bytes:
    """A tar whose one member is a terabyte of holes (GNU's way to write them)."""
    data = bytearray(tar_of({"cat/hole.png": b""}, style=tarfile.GNU_FORMAT))
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[386:410] = b"00000000000\0" + b"00000000000\0"
    data[483:495] = b"\x80\0\0\0\0\0\1\0\0\0\0\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def with_header(num_bytes: int, name: str) -> tarfile.TarInfo:
    """An empty member whose extended header has so many bytes."""
    info = tarfile.TarInfo(name)
    info.pax_headers = {"comment": "x" * num_bytes}
    return info


def wide_headers() -> bytes:
    """A tar.gz that has as much as a bomb between its members."""
    return tar_of({f"cat/{number}.png": with_header(800_000, f"cat/{number}.png") for number in range(90)}, "w:gz")


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """A Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def parquet_rows() -> bytes:
    """More rows than an upload may have, in a few bytes: all of them are nothing."""
    num = 1_500_000
    return parquet({"image": pa.nulls(num, pa.binary()), "label": pa.nulls(num, pa.string())})


def parquet_repeats(num_rows: int = 20, num_bytes: int = 2**22) -> bytes:
    """One picture that is meant by all of its rows, and stored once."""
    places = pa.array([0] * num_rows, pa.int32())
    image = pa.DictionaryArray.from_arrays(places, pa.array([bytes(num_bytes)], pa.binary()))
    columns = {"image": image, "label": ["a", "b"] * (num_rows // 2)}
    # Without Arrow's own schema, which would say that it is a dictionary.
    return parquet(columns, compression="zstd", store_schema=False)


def parquet_labels() -> bytes:
    """A label of a megabyte that all rows have, and stored once."""
    label = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["x" * 2**20]))
    return parquet({"image": [JPG] * 300, "label": label}, compression="zstd", store_schema=False)


def parquet_path(path: str) -> bytes:
    """Pictures with bytes and names of their own, but for one."""
    paths = ["a/0.png", "a/1.png", "b/0.png", path]
    return parquet({"image": [{"bytes": JPG, "path": one} for one in paths], "label": ["a", "a", "b", "b"]})


def manifest(row: bytes, kind: str = "csv") -> Upload:
    """Good pictures, and a manifest with one more row."""
    head = b"file,label\n" + ROW if kind == "csv" else b'{"file": "cat/0.png", "label": "cat"}\n'
    return {**GOOD, f"labels.{kind}": head + row}


def labelled(labels: list[Any]) -> Upload:
    """A picture for each label."""
    files = {f"{number}.png": JPG for number in range(len(labels))}
    rows = [{"file": name, "label": label} for name, label in zip(files, labels, strict=True)]
    return {**files, "labels.jsonl": "\n".join(map(json.dumps, rows)).encode()}


UNSAFE: dict[str, Make] = {
    "dot dot": lambda: {**GOOD, "../../etc/x.jpg": JPG},
    "dot dot in the middle": lambda: {**GOOD, "a/../../x.jpg": JPG},
    "dot dot with backslashes": lambda: {**GOOD, "a\\..\\..\\x.jpg": JPG},
    "absolute": lambda: {**GOOD, "/etc/x.jpg": JPG},
    "a drive letter": lambda: {**GOOD, "C:/x.jpg": JPG},
    "a name of 900,000 characters": lambda: tar_of({**GOOD, f"cat/{'x' * 900_000}.png": JPG}, "w:gz"),
    "another machine": lambda: {**GOOD, "\\\\host\\share\\x.jpg": JPG},
    "dot dot in a tar": lambda: tar_of({**GOOD, "../x.jpg": JPG}),
    "dot dot in a Parquet file": lambda: parquet_path("../../a.png"),
    "absolute in a Parquet file": lambda: parquet_path("/etc/passwd"),
    "a NUL character in a Parquet file": lambda: parquet_path("a\0b.png"),
    "absolute in a tar.gz": lambda: tar_of({**GOOD, "/x.jpg": JPG}, "w:gz"),
}
LINKS: dict[str, Make] = {
    "a symbolic link in a zip": lambda: zip_special(stat.S_IFLNK),
    "a device in a zip": lambda: zip_special(stat.S_IFBLK),
    "a symbolic link": lambda: special(tarfile.SYMTYPE),
    "a hard link": lambda: special(tarfile.LNKTYPE),
    "a device": lambda: special(tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a pipe": lambda: special(tarfile.FIFOTYPE),
}
BOMBS: dict[str, Make] = {
    "overlapping members": overlapping,
    "a flat bomb": lambda: {**GOOD, **{f"cat/big{n}.png": bytes(40_000_000) for n in range(2)}},
    "a flat tar.gz bomb": lambda: tar_of({f"cat/{n}.png": bytes(40_000_000) for n in range(2)}, "w:gz"),
    "a tar.gz bomb of headers": wide_headers,
    "a million and more names": lambda: crowded(1_000_001),
    "a directory that says it has gigabytes": lambda: counting(60_000),
    "rows of nothing": parquet_rows,
    "one picture in many rows": parquet_repeats,
    "one label in many rows": parquet_labels,
}
BROKEN: dict[str, tuple[str, Make]] = {
    "half a zip": ("not_an_archive", lambda: deflated(GOOD)[:1500]),
    "half a tar.gz": ("not_an_archive", lambda: tar_of(GOOD, "w:gz")[:1500]),
    "half a tar": ("not_an_archive", lambda: tar_of(GOOD)[:1500]),
    "a gzip that is no tar": ("not_an_archive", lambda: gzip.compress(b"hello" * 1000)),
    "a gzip of zeros": ("empty_archive", lambda: gzip.compress(bytes(90_000_000))),
    "a header of megabytes": ("not_an_archive", lambda: tar_of({"a": with_header(3_000_000, "cat/a.png")})),
    "a terabyte of holes": ("nothing_decodable", sparse),
    "a size that is too small": ("nothing_decodable", lambda: lying(100)),
    "a size that is too large": ("bomb", lambda: lying(2**32 - 2)),
    "zips in zips": ("nothing_decodable", lambda: nested(3)),
    "encrypted": ("encrypted", lambda: patched(GOOD, 6, 1)),
    "an executable": ("not_an_archive", lambda: b"\x7fELF" + bytes(200)),
    "a script": ("not_an_archive", lambda: b"#!/bin/sh\nrm -rf /\n"),
    "a broken Parquet file": ("parquet_broken", lambda: b"PAR1" + bytes(100) + b"PAR1"),
    "a Parquet file with a huge footer": ("parquet_broken", lambda: b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1"),
}
OUTSIDE: dict[str, tuple[str, Make]] = {
    "a manifest to outside": ("reference_outside", lambda: manifest(b"../../etc/passwd,dog\n")),
    "a manifest to an absolute path": ("reference_outside", lambda: manifest(b"/etc/passwd,dog\n")),
    "a manifest to a URL": (
        "reference_outside", lambda: manifest(b'{"file": "file:///etc/passwd", "label": "dog"}\n', "jsonl")),
    "a Parquet path without bytes": (
        "reference_outside",
        lambda: parquet({"image": [{"bytes": None, "path": "/etc/passwd"}] * 4, "label": ["a", "b"] * 2}),
    ),
    "COCO annotations of files outside": (
        "coco_unsupported",
        lambda: {"images/0.png": JPG, "a.json": b'{"images": [{"file_name": "../../etc/passwd"}], "annotations": []}'},
    ),
    "a manifest of one long line": (
        "manifest_broken", lambda: manifest(b'{"file": "dog/0.png", "label": [' + b"[]," * 500_000 + b"1]}", "jsonl")),
    "a manifest of brackets": ("manifest_broken", lambda: manifest(b"[" * 100_000 + b"\n", "jsonl")),
    "a label as deep as JSON is read": (
        "manifest_broken",
        lambda: manifest(b'{"file": "dog/0.png", "label": %s%s}' % (b"[" * 960, b"]" * 960), "jsonl"),
    ),
}  # fmt: skip
LABELLED: dict[str, tuple[str, Make]] = {
    "3,000 other classes in each of 300 pictures": (
        "too_many_labels",
        lambda: labelled([[str(3000 * number + name) for name in range(3000)] for number in range(300)]),
    ),
    "a class with a name of 900,000 characters": ("label_too_long", lambda: labelled(["a", "x" * 900_000] * 2)),
}
# One for each way to say no, for where each costs a job; all of them go through ingestion itself.
SERVED = (
    "dot dot", "absolute in a tar.gz", "dot dot in a Parquet file",
    "a name of 900,000 characters", "a symbolic link in a zip", "a device",
    "overlapping members", "a flat bomb", "a million and more names", "rows of nothing", "one picture in many rows",
    "one label in many rows", "half a tar.gz", "a size that is too small", "zips in zips", "encrypted", "an executable",
    "a broken Parquet file", "a manifest to outside", "COCO annotations of files outside", "a manifest of brackets",
    "3,000 other classes in each of 300 pictures",
)  # fmt: skip
REFUSED: dict[str, tuple[str, Make]] = {
    **{name: ("unsafe_path", make) for name, make in UNSAFE.items()},
    **{name: ("unsafe_link", make) for name, make in LINKS.items()},
    **{name: ("bomb", make) for name, make in BOMBS.items()},
    **BROKEN,
    **OUTSIDE,
    **LABELLED,
}
