"""Opens an untrusted upload: what it is, by its content, and its members as streams.

Nothing is ever extracted: names are text, never paths of this machine. Names that point outside, links, devices,
encryption, overlapping members and bombs refuse the whole upload; a member that does not unpack costs only itself.
Sizes are counted while reading, since a header may lie.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from worker.data import zips
from worker.data.limits import Limits
from worker.data.members import Member
from worker.data.problems import Problems

Kind = Literal["zip", "tar", "parquet"]

_KNOWN = {
    b"%PDF": "a PDF",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\xfd7zX": "an xz file",
    b"BZh": "a bzip2 file",
    b"\xff\xd8\xff": "a single JPEG image",
    b"\x89PNG": "a single PNG image",
    b"GIF8": "a single GIF image",
    b"RIFF": "a single WEBP image or another RIFF file",
}


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
    if kind == "zip":
        return zips.members(path, limits, problems)
    # An eighth of the time in which the opening process starts, which a zip need not pay.
    from worker.data import tars

    return tars.members(path, limits, problems)


def _is_old_tar(path: Path) -> bool:
    from worker.data import tars

    return tars.is_old(path)


def _describe(head: bytes) -> str:
    for magic, what in _KNOWN.items():
        if head.startswith(magic):
            return what
    try:
        return f"text that starts with {head[:40].decode()!r}"
    except UnicodeDecodeError:
        return f"a file that starts with {head[:8].hex(' ')}"
