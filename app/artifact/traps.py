"""Images whose header promises little and whose decoding costs much: found before a pixel is decoded.

Three formats have a place for that beside width and height: the picture inside an icon, a TIFF's tile, a JPEG's number
of scans. Measured: an icon of 256 x 256 and 390 kB took 400 MB, a TIFF of 100 x 100 the same, a JPEG of 90 kB a minute.

Every format can be in very many pieces, each of which costs Pillow a turn in Python: 64 MB of empty chunks or segments
took 25 to 50 s. EXIF of 60 MB in a JPEG took 20 s, a plain PPM of 4 MB with a comment on every line minutes: each part
is copied with all before it, or behind. Tags are looked at by `tags`.
"""

import io
import struct

from PIL import Image

from app.errors import BadImage

MAX_ICONS = 64
# Encoders write 10, those that search for the smallest file some dozens; each costs a pass over all of the image.
MAX_SCANS = 100
# Encoders write pieces of 8 kB and more, and a few hundred small ones.
READS, BYTES_PER_READ = 20_000, 1024
MAX_COMMENTS = 1000
# Of 64 kB each; a file that is no larger than that has no room for many.
MAX_EXIF, LARGE_BYTES = 100, 2**23
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0\0"
_PLAIN = (b"P1", b"P2", b"P3")
_ICON = b"\0\0\1\0"
_SCAN = b"\xff\xda"
_TILE_WIDTH, _TILE_LENGTH, _SHORT = 322, 323, 3


class Pieces(io.BytesIO):
    """An image's bytes, for a reader that takes them in pieces of a usual size."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._num_left = READS + len(data) // BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        """The next piece.

        Raises:
            BadImage: it is one too many.
        """
        self._num_left -= 1
        if self._num_left < 0:
            raise BadImage(
                "expected an image in pieces of some kilobytes; found very many small ones; save it again with an "
                "image editor",
                code="image_unsupported",
            )
        return super().read(size)


def check_copies(data: bytes) -> None:
    """Refuses what Pillow copies once more for each of many parts: a plain PPM by its comments, a JPEG by its EXIF.

    Raises:
        BadImage: too many of them.
    """
    number, what, most = 0, "comments in a PPM", MAX_COMMENTS
    if data.startswith(_PLAIN):
        number = data.count(b"#")
    elif len(data) > LARGE_BYTES and data.startswith(_JPEG):
        number, what, most = data.count(_EXIF), "pieces of EXIF in a JPEG", MAX_EXIF
    if number > most:
        raise BadImage(
            f"expected at most {most} {what}; found {number}; save it again with an image editor",
            code="image_unsupported",
        )


def check_icon(data: bytes, max_pixels: int) -> None:
    """Refuses an icon by the pictures inside, one of which Pillow decodes as soon as it opens it.

    Raises:
        BadImage: a picture of more pixels than `max_pixels`, or too many pictures.
        OSError: one of them is none.
    """
    if not data.startswith(_ICON):
        return
    number = int.from_bytes(data[4:6], "little")
    if number > MAX_ICONS:
        raise BadImage(
            f"expected at most {MAX_ICONS} pictures in an icon; found {number}; save one of them as PNG",
            code="image_unsupported",
        )
    for place in range(number):
        entry = data[6 + 16 * place : 22 + 16 * place]
        if len(entry) < 16:
            raise OSError("a directory that is cut short")
        (offset,) = struct.unpack_from("<I", entry, 12)
        with Image.open(Pieces(data[offset:]), formats=("PNG", "DIB")) as picture:
            _check_size(*picture.size, max_pixels, "in its icon")


def check(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuses a TIFF by its tiles, which are decoded whole, and a JPEG by its scans.

    Args:
        image: opened, not decoded.
        data: what it was opened from.
        max_pixels: limit on width x height, of a tile as well.

    Raises:
        BadImage: image_too_large or image_unsupported.
    """
    if image.format == "TIFF":
        _check_size(*_tile(data), max_pixels, "in a tile")
    elif image.format in {"JPEG", "MPO"} and _has_scans(image, data):
        number = data.count(_SCAN)
        if number > MAX_SCANS:
            raise BadImage(
                f"expected a JPEG of at most {MAX_SCANS} scans; found {number}; save it again with an image editor",
                code="image_unsupported",
            )


def _tile(data: bytes) -> tuple[int, int]:
    """Width and length of a TIFF's tiles as its first directory says them, (0, 0) where it has none.

    Read by hand: of a tag that stands there twice, Pillow takes the last and libtiff the first.

    Raises:
        BadImage: the directory is cut short.
    """
    order = "<" if data.startswith(b"II") else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    place, counted, entry = ("Q", "Q", "HHQQ") if is_big else ("I", "H", "HHII")
    largest = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    try:
        (start,) = struct.unpack_from(order + place, data, 8 if is_big else 4)
        (number,) = struct.unpack_from(order + counted, data, start)
        start += struct.calcsize(counted)
        for _ in range(number):
            tag, kind, _, value = struct.unpack_from(order + entry, data, start)
            if tag in largest:
                if kind == _SHORT:
                    (value,) = struct.unpack_from(order + "H", data, start + struct.calcsize(order + entry[:3]))
                largest[tag] = max(largest[tag], value)
            start += struct.calcsize(order + entry)
    except (struct.error, OverflowError) as error:
        raise BadImage("expected a whole directory in the TIFF; found one cut short; save it again") from error
    return largest[_TILE_WIDTH], largest[_TILE_LENGTH]


def _check_size(width: int, height: int, max_pixels: int, where: str) -> None:
    if width * height > max_pixels:
        raise BadImage(
            f"expected at most {max_pixels} pixels; found {width} x {height} {where}; make it smaller",
            code="image_too_large",
        )


def _has_scans(image: Image.Image, data: bytes) -> bool:
    """Whether it may have more than one; counting them in all others would cost a twentieth of their decoding."""
    if "progressive" in image.info:
        return True
    layers: int = image.layers  # type: ignore[attr-defined]
    # Pillow stops behind the header of the first scan: marker, length, and two bytes for each colour that is in it.
    end: int = image.fp.tell()  # type: ignore[attr-defined]
    return data[end - 8 - 2 * layers : end - 6 - 2 * layers] != _SCAN
