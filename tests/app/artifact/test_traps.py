"""Images that cost more than their header says are refused before they are decoded; others are not searched in vain."""

import io
import warnings
from typing import Any

import pytest
from PIL import Image

from app.artifact import traps
from app.artifact.decoding import decode
from app.errors import BadImage
from tests.hostile import images


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    return images.encoded(Image.new(mode, (40, 30)), kind, **options)


@pytest.mark.parametrize("name", images.REFUSED)
def test_refused(name: str) -> None:
    code, make = images.REFUSED[name]
    data = make()
    with warnings.catch_warnings():
        # Pillow warns of broken metadata; whether it is an image is the question here.
        warnings.simplefilter("ignore")
        with pytest.raises(BadImage) as caught:
            decode(data)
    assert caught.value.code == code


@pytest.mark.parametrize("name", images.READ)
def test_read(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(images.READ[name]()).mode == "RGB"


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
def test_a_tiff_without_tiles_has_none(options: dict[str, Any]) -> None:
    assert traps._tile(encoded("TIFF", **options)) == (0, 0)


def test_a_tile_is_found_in_either_order_of_bytes() -> None:
    directory = b"".join(tag.to_bytes(2, "big") + b"\0\4\0\0\0\1" + (9).to_bytes(4, "big") for tag in (322, 323))
    assert traps._tile(b"MM\0*\0\0\0\x08\0\2" + directory) == (9, 9)
    with pytest.raises(BadImage, match="cut short"):
        traps._tile(b"MM\0*\0\0\0\x08\0\2" + directory[:20])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_only_a_jpeg_of_several_passes_is_searched_for_them(mode: str) -> None:
    for options, has_several in (({}, False), ({"progressive": True}, True)):
        data = encoded("JPEG", mode, **options)
        assert traps._has_scans(Image.open(io.BytesIO(data)), data) is has_several


def test_an_icon_is_read_as_before() -> None:
    assert decode(encoded("ICO", sizes=[(16, 16), (32, 24)])).mode == "RGB"
