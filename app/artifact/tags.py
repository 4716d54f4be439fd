"""What a directory of tags may say: a TIFF is one, and EXIF in any format, and a JPEG's list of further pictures.

Pillow makes a Python object of every value of a tag that it looks at, however many there are: 60 MB of them took two
gigabytes and a minute, for a picture of 40 x 40. It reads directories in many places, some as soon as it opens a file;
so they are counted where all of them pass.
"""

from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from PIL.TiffTags import ASCII, BYTE, RATIONAL, SIGNED_RATIONAL, UNDEFINED

from app.errors import BadImage

# 100 megapixels in tiles of 28 x 28 have as many; they take a tenth of a second and 6 MB.
MAX_VALUES = 2**17
# One object for all of it, of the size that it has in the file.
_WHOLE = frozenset({BYTE, ASCII, UNDEFINED})
# A fraction takes as long as so many numbers.
_FRACTION = 16

_load = Directory.load


def guard() -> None:
    """Has Pillow refuse what is too much, from now on."""
    Directory.load = _load_few  # type: ignore[method-assign]


def _load_few(self: Directory, fp: IO[bytes]) -> None:
    """Pillow's own, which takes no more bytes than the file has and unpacks none of them yet.

    Raises:
        BadImage: code image_unsupported.
    """
    _load(self, fp)
    number = sum(_values(kind, len(self._tagdata[tag])) for tag, kind in self.tagtype.items() if tag in self._tagdata)
    if number > MAX_VALUES:
        raise BadImage(
            f"expected at most {MAX_VALUES} numbers in the image's tags, a fraction counted as {_FRACTION}; found "
            f"{number}; save it again with an image editor, without EXIF",
            code="image_unsupported",
        )


def _values(kind: int, num_bytes: int) -> int:
    if kind in _WHOLE:
        return 0
    unit, _ = Directory._load_dispatch[kind]
    return num_bytes // unit * (_FRACTION if kind in (RATIONAL, SIGNED_RATIONAL) else 1)
