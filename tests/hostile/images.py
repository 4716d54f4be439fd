"""Images that must be refused, each with the code of the problem, and some that look bad and must be read."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from tests import factories

Make = Callable[[], bytes]
XXE = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
SVG = XXE + b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><text>&x;</text></svg>'


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def plain(kind: str, side: int = 40, **options: Any) -> bytes:
    """A picture like any other."""
    return encoded(Image.open(io.BytesIO(factories.png(size=side))), kind, **options)


def zeros(num_bytes: int) -> bytes:
    """That many zeros, a thousandth as large."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join(packer.compress(block) for _ in range(num_bytes // 2**20 + 1)) + packer.flush()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes, *more: bytes, colour: int = 2) -> bytes:
    """A PNG of that header and those packed rows, whether they fit or not."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def icon(*pictures: bytes, number: int | None = None) -> bytes:
    """An icon that says 256 x 256 of each of its pictures."""
    end = 6 + 16 * len(pictures)
    entries = b""
    for picture in pictures:
        entries += struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(picture), end)
        end += len(picture)
    return struct.pack("<HHH", 0, 1, len(pictures) if number is None else number) + entries + b"".join(pictures)


def tiff(content: bytes, *more: tuple[int, int, int], following: int = 0) -> bytes:
    """A grey TIFF of 100 x 100 in one packed strip, or in what `more` tags say.

    A tag is its number, its type (3 for a SHORT, 4 for a LONG) and its value, where -1 is the place of the content.
    """
    tags = [(256, 4, 100), (257, 4, 100), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), *more]
    if not any(tag in (273, 322) for tag, _, _ in more):
        tags += [(273, 4, -1), (278, 4, 100), (279, 4, len(content))]
    start = 8 + 2 + 12 * len(tags) + 4
    out = b"II*\0" + struct.pack("<IH", 8, len(tags))
    # Tags in their order, and one that comes twice in the order given.
    for tag, kind, value in sorted(tags, key=lambda one: one[0]):
        out += struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", start if value == -1 else value)
    return out + struct.pack("<I", following) + content


def tiled(*sizes: tuple[int, int], kind: int = 4) -> bytes:
    """A TIFF of those tiles: width and length each, one behind the other."""
    tags = [(tag, kind, size) for pair in sizes for tag, size in zip((322, 323), pair, strict=True)]
    return tiff(zeros(10**6), *tags, (324, 4, -1), (325, 4, 999))


def gif_in_a_screen_of_one() -> bytes:
    """A screen of one pixel, and on it a frame of billions."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\2\2\x44\1\0;"


def jpeg_of_scans(number: int) -> bytes:
    """A progressive JPEG whose last pass comes again and again: a second of work in every kilobyte."""
    whole = encoded(Image.new("L", (4000, 4000)), "JPEG", progressive=True)
    end = whole.rfind(b"\xff\xd9")
    last = whole[whole.rfind(b"\xff\xc4", 0, whole.rfind(b"\xff\xda")) : end]
    return whole[:end] + last * number + b"\xff\xd9"


def webp_of(side: int) -> bytes:
    """An animation's header of that size."""
    size = (side - 1).to_bytes(3, "little")
    frame = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + size
    whole = plain("WEBP", lossless=True)[12:]
    content = frame + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    content += b"ANMF" + struct.pack("<I", 16 + len(whole)) + bytes(6) + size + size + bytes(4) + whole
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content


def with_exif(block: bytes) -> bytes:
    """A JPEG with that for EXIF."""
    whole = plain("JPEG")
    content = b"Exif\0\0" + block
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + whole[2:]


def directory(kind: int, unit: int, number: int) -> bytes:
    """Tags that say which side is up in so many values."""
    values = bytes(unit * number)
    entry = struct.pack("<HHHII", 1, 274, kind, number, 8)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + entry + struct.pack("<I", 0)


def upright(kind: int, unit: int, number: int) -> bytes:
    """A PNG with those for EXIF."""
    return png(2, 2, zlib.compress(bytes(14)), chunk(b"eXIf", directory(kind, unit, number)))


def behind_the_start(segment: bytes, number: int) -> bytes:
    """A JPEG with so many segments more."""
    whole = plain("JPEG")
    return whole[:2] + segment * number + whole[2:]


def zip_behind(image: bytes) -> bytes:
    """An image that is an archive as well."""
    out = io.BytesIO(image)
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("../../evil.sh", "touch /tmp/evil")
    return out.getvalue()


REFUSED: dict[str, tuple[str, Make]] = {
    "50,000 x 50,000": ("image_too_large", lambda: png(50_000, 50_000, zeros(1))),
    "a frame larger than its screen": ("image_too_large", gif_in_a_screen_of_one),
    "a picture larger than its icon": ("image_too_large", lambda: icon(png(20_000, 20_000, zeros(1), colour=0))),
    "a bitmap larger than its icon": (
        "image_too_large", lambda: icon(struct.pack("<IiiHHIIiiII", 40, 20_000, 40_000, 1, 32, 0, 0, 0, 0, 0, 0))),
    "a tile larger than its image": ("image_too_large", lambda: tiled((20_000, 20_000))),
    "a tile in short numbers": ("image_too_large", lambda: tiled((20_000, 20_000), kind=3)),
    "a tile that is said twice": ("image_too_large", lambda: tiled((20_000, 20_000), (64, 64))),
    "a tile that is said twice, the larger last": ("image_too_large", lambda: tiled((64, 64), (20_000, 20_000))),
    "an animation of 12,000 x 12,000": ("image_too_large", lambda: webp_of(12_000)),
    "a bitmap of 60,000 x -60,000": (
        "image_too_large",
        lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60_000, -60_000, 1, 24, *[0] * 6) + bytes(45),
    ),
    "a header in text": ("image_too_large", lambda: b"P6 99999 99999 255\n" + bytes(99)),
    "an icon of thousands": ("image_unsupported", lambda: icon(*[plain("PNG", 8)] * 3, number=5000)),
    "a JPEG of 500 passes": ("image_unsupported", lambda: jpeg_of_scans(500)),
    "a TIFF's tag of very many numbers": ("image_unsupported", lambda: directory(3, 2, 200_000)),
    "EXIF of very many numbers": ("image_unsupported", lambda: upright(4, 4, 200_000)),
    "EXIF of many fractions": ("image_unsupported", lambda: upright(5, 8, 10_000)),
    "EXIF in very many pieces": (
        "image_unsupported", lambda: behind_the_start(b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527), 130)),
    "very many empty chunks": (
        "image_unsupported", lambda: png(2, 2, zlib.compress(bytes(14)), chunk(b"teST", b"") * 20_000)),
    "an icon of very many empty chunks": (
        "image_unsupported", lambda: icon(png(2, 2, zlib.compress(bytes(14)), chunk(b"teST", b"") * 20_000))),
    "very many empty segments": ("image_unsupported", lambda: behind_the_start(b"\xff\xee\0\2", 20_000)),
    "a comment on every line": ("image_unsupported", lambda: b"P3 2 2 255\n" + b"#\n" * 2000 + b"1 " * 12),
    "a strip": ("image_unsupported", lambda: encoded(Image.new("RGB", (3000, 2)), "PNG")),
    "floating point": ("image_unsupported", lambda: encoded(Image.new("F", (10, 10)), "TIFF")),
    "gigabytes of text": (
        "image_unreadable", lambda: png(2, 2, zeros(1), chunk(b"zTXt", b"k\0\0" + zeros(2 * 10**7)))),
    "a profile of gigabytes": (
        "image_unreadable", lambda: png(2, 2, zeros(1), chunk(b"iCCP", b"k\0\0" + zeros(2 * 10**7)))),
    "SVG with an entity of a file": ("image_unreadable", lambda: SVG),
    "SVG in gzip": ("image_unreadable", lambda: b"\x1f\x8b\x08\0" + bytes(6) + SVG),
    "PostScript": ("image_unreadable", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(/tmp/evil) (w) file\n"),
    "a PDF around a JPEG": ("image_unreadable", lambda: b"%PDF-1.4\n" + plain("JPEG")),
    "a page": ("image_unreadable", lambda: b"<html><script>alert(1)</script></html>"),
    "an empty file": ("image_unreadable", lambda: b""),
    "an icon that points outside": ("image_unreadable", lambda: icon(plain("PNG", 8))[:40]),
    "a TIFF without its strip": ("image_unreadable", lambda: tiff(b"", (273, 4, 2**31))),
    "half a PNG": ("image_truncated", lambda: plain("PNG", 200)[:3000]),
    "half a JPEG": ("image_truncated", lambda: plain("JPEG", 200)[:3000]),
}  # fmt: skip
READ: dict[str, Make] = {
    "broken EXIF": lambda: with_exif(b"MM\0*\xff\xff\xff\xff"),
    "EXIF that points at itself": lambda: with_exif(b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"),
    "a profile that is none": lambda: plain("JPEG", icc_profile=b"no profile at all" * 9),
    "a TIFF whose directories are a ring": lambda: tiff(zeros(1), following=8),
    "a TIFF of three thousand strips": lambda: encoded(Image.new("RGB", (40, 3000)), "TIFF", strip_size=1),
    "a GIF that is a zip": lambda: zip_behind(plain("GIF")),
    "a JPEG that is a page": lambda: plain("JPEG", comment=b"<script>alert(1)</script>*/=1;/*"),
}
