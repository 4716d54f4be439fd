"""The one decode and resize, against Pillow's and torchvision's own."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.transforms import functional

from app.artifact import preprocess
from app.artifact.decoding import decode, open_image
from app.artifact.preprocess import Preprocess, apply, load
from app.errors import BadImage

IMAGENET = Preprocess(224, 224, 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WHITE = (255, 255, 255)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colour, as photographs mostly are; noise would only measure the resampling's aliasing."""
    patches = np.random.default_rng(seed).integers(40, 216, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def levels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def torchvision_way(image: Image.Image, spec: Preprocess) -> NDArray[np.int64]:
    """Resize of the shorter side, then CenterCrop: two steps, with the rounding in between that ours leaves out."""
    mode = functional.InterpolationMode(spec.interpolation)
    resized = functional.resize(image, [spec.resize], mode)
    return levels(functional.center_crop(resized, [spec.height, spec.width]))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(400, 300), (300, 400), (256, 256), (640, 427), (1200, 900), (97, 130)])
def test_resize_and_crop_agree_with_torchvision(size: tuple[int, int], interpolation: str) -> None:
    spec = Preprocess(224, 224, 256, interpolation, (0.5,) * 3, (0.5,) * 3)
    ours = apply(photo(*size), spec).astype(np.int64)
    theirs = torchvision_way(photo(*size), spec)
    # torchvision rounds the long side and the crop's corner to whole pixels: up to half a pixel of shift.
    assert ours.shape == theirs.shape == (224, 224, 3)
    assert np.abs(ours - theirs).mean() < 1.0
    assert np.percentile(np.abs(ours - theirs), 99) <= 4


def test_resize_is_exactly_torchvisions_where_nothing_is_rounded() -> None:
    ours = apply(photo(512, 512), IMAGENET).astype(np.int64)
    assert np.abs(ours - torchvision_way(photo(512, 512), IMAGENET)).max() <= 1


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(1, 64),
    resize=st.integers(1, 96),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_any_size_gives_the_spec_s_shape(width: int, height: int, side: int, resize: int, interpolation: str) -> None:
    spec = Preprocess(side, side, resize, interpolation, (0.5,) * 3, (0.5,) * 3)
    result = apply(photo(width, height), spec)
    assert result.shape == (side, side, 3)
    assert result.dtype == np.uint8


@settings(max_examples=25, deadline=None)
@given(width=st.integers(20, 90), height=st.integers(20, 90), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_plain_image_stays_plain(width: int, height: int, colour: tuple[int, int, int]) -> None:
    result = load(encode(Image.new("RGB", (width, height), colour), "PNG"), IMAGENET)
    assert (result == np.array(colour)).all()


@pytest.mark.parametrize("size", [(4000, 3000), (1023, 2047), (513, 700)])
def test_draft_mode_differs_by_at_most_two_levels(size: tuple[int, int]) -> None:
    data = encode(photo(*size), "JPEG", quality=92)
    whole = apply(decode(data), IMAGENET).astype(np.int64)
    drafted = load(data, IMAGENET).astype(np.int64)
    assert np.abs(whole - drafted).mean() < 0.5
    assert np.percentile(np.abs(whole - drafted), 99) <= 2


def test_draft_mode_is_used_only_where_enough_pixels_stay() -> None:
    data = encode(photo(1024, 768), "JPEG")
    assert decode(data).size == (1024, 768)
    assert decode(data, at_least=200).size == (512, 384)
    assert decode(data, at_least=385).size == (1024, 768)
    assert decode(encode(photo(1024, 768), "PNG"), at_least=100).size == (1024, 768)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    original = photo(64, 40)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    data = encode(original, kind, exif=with_orientation(orientation), **options)
    turned = {
        1: original,
        2: ImageOps.mirror(original),
        3: original.rotate(180),
        4: ImageOps.flip(original),
        5: original.transpose(Image.Transpose.TRANSPOSE),
        6: original.transpose(Image.Transpose.ROTATE_270),
        7: original.transpose(Image.Transpose.TRANSVERSE),
        8: original.transpose(Image.Transpose.ROTATE_90),
    }[orientation]
    assert decode(data).size == turned.size
    assert np.abs(levels(decode(data)) - levels(turned)).max() <= (6 if kind == "JPEG" else 0)


def test_exif_orientation_and_draft_mode_together() -> None:
    data = encode(photo(1024, 512), "JPEG", exif=with_orientation(6))
    assert decode(data, at_least=128).size == (128, 256)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_flattened_on_white(kind: str) -> None:
    image = photo(32, 32).convert("RGBA")
    alpha = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    image.putalpha(Image.fromarray(alpha))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    expected = levels(photo(32, 32)) * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]
    assert np.abs(levels(decode(encode(image, kind, **options))) - expected).max() <= 1


def test_grey_with_alpha_is_flattened_on_white() -> None:
    image = Image.merge("LA", [Image.new("L", (8, 8), 40), Image.new("L", (8, 8), 0)])
    assert decode(encode(image, "PNG")).getpixel((3, 3)) == WHITE


@pytest.mark.parametrize("as_bytes", [True, False])
def test_transparent_palette_entries_become_white(as_bytes: bool) -> None:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 255])
    image.paste(0, (0, 0, 5, 10))
    transparency = bytes([0, 255, 255]) if as_bytes else 0
    decoded = decode(encode(image, "PNG", transparency=transparency))
    assert decoded.getpixel((2, 5)) == WHITE
    assert decoded.getpixel((7, 5)) == (0, 128, 0)


def test_a_transparent_colour_becomes_white() -> None:
    image = Image.new("RGB", (10, 10), (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, 5, 10))
    decoded = decode(encode(image, "PNG", transparency=(1, 2, 3)))
    assert (decoded.getpixel((7, 5)), decoded.getpixel((2, 5))) == (WHITE, (9, 9, 9))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_high_byte(kind: str) -> None:
    deep = (np.arange(64 * 48, dtype=np.uint32).reshape(48, 64) * 21 % 65536).astype(np.uint16)
    decoded = levels(decode(encode(Image.fromarray(deep), kind)))
    assert (decoded == (deep >> 8)[..., None]).all()


def test_16_bits_per_colour_are_read() -> None:
    """Pillow cannot write these; the header is by hand."""
    rgb = np.full((4, 5, 3), (0x8012, 0x40FF, 0x0100), dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)
    data = png(5, 4, 16, 2, zlib.compress(rows))
    assert decode(data).getpixel((2, 2)) == (0x80, 0x40, 0x01)


def test_cmyk_jpeg_is_read_as_its_colours() -> None:
    data = encode(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = decode(data).getpixel((10, 10))
    assert red > 245
    assert green < 10
    assert blue < 10


@pytest.mark.parametrize("mode", ["1", "L", "P", "LAB", "YCbCr", "CMYK", "I", "I;16"])
def test_every_integer_mode_gives_rgb(mode: str) -> None:
    image = Image.new(mode, (6, 5)) if mode.startswith("I") else Image.new("RGB", (6, 5), (90, 90, 90)).convert("RGB")
    if mode == "LAB":
        image = Image.new("LAB", (6, 5))
    elif not mode.startswith("I"):
        image = image.convert(mode)
    assert decode(encode(image, "TIFF")).mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(kind: str) -> None:
    first, second = Image.new("RGB", (20, 20), (200, 0, 0)), Image.new("RGB", (20, 20), (0, 0, 200))
    data = encode(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    assert decode(data).getpixel((5, 5)) == (200, 0, 0)


def test_several_jpegs_in_one_file_are_read_as_the_first() -> None:
    data = encode(photo(64, 48), "MPO", save_all=True, append_images=[photo(64, 48, seed=1)])
    assert open_image(data).format == "MPO"
    assert decode(data, at_least=20).size == (32, 24)
    assert np.abs(levels(decode(data)) - levels(photo(64, 48))).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_short_is_refused(kind: str) -> None:
    data = encode(photo(120, 90), kind)
    with pytest.raises(BadImage) as caught:
        decode(data[: len(data) * 2 // 3])
    assert caught.value.code in {"image_truncated", "image_unreadable"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_cut_short_is_called_truncated(kind: str) -> None:
    data = encode(photo(120, 90), kind)
    with pytest.raises(BadImage) as caught:
        decode(data[: len(data) * 2 // 3], at_least=32)
    assert caught.value.code == "image_truncated"


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\0" * 1000, b"%PDF-1.7", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg/>"]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BadImage) as caught:
        decode(data)
    assert caught.value.code in {"image_unreadable", "image_truncated"}
    assert "expected" in caught.value.detail or "cannot" in caught.value.detail or "broken" in caught.value.detail


def test_a_broken_header_is_not_called_another_format() -> None:
    with pytest.raises(BadImage, match="expected a whole PNG; found one of 208 bytes"):
        decode(b"\x89PNG\r\n\x1a\n" + bytes(200))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_header_that_claims_a_huge_image_is_refused_before_decoding() -> None:
    with pytest.raises(BadImage) as caught:
        open_image(png(60_000, 60_000, 8, 2, b""))
    assert caught.value.code == "image_too_large"
    assert "60000 x 60000" in caught.value.detail


def test_the_limit_on_pixels_is_the_caller_s() -> None:
    data = encode(photo(50, 40), "PNG")
    assert open_image(data, max_pixels=2000).size == (50, 40)
    with pytest.raises(BadImage, match="at most 1999 pixels"):
        decode(data, max_pixels=1999)


def test_a_strip_is_refused() -> None:
    with pytest.raises(BadImage) as caught:
        decode(encode(Image.new("RGB", (1000, 2)), "PNG"))
    assert caught.value.code == "image_unsupported"


def test_floating_point_is_refused() -> None:
    with pytest.raises(BadImage) as caught:
        decode(encode(Image.new("F", (10, 10)), "TIFF"))
    assert caught.value.code == "image_unsupported"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"]))
def test_broken_bytes_give_an_image_or_bad_image(data: st.DataObject, kind: str) -> None:
    options = {"exif": with_orientation(6)} if kind in {"JPEG", "PNG", "TIFF", "WEBP"} else {}
    broken = bytearray(encode(photo(24, 20), kind, **options))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=5)):
        broken[place % len(broken)] = value
    del broken[data.draw(st.integers(1, len(broken))) :]
    with warnings.catch_warnings():
        # Pillow warns of broken metadata; whether it is an image is the question here.
        warnings.simplefilter("ignore")
        try:
            found = decode(bytes(broken), max_pixels=10**6).mode
        except BadImage as error:
            found = error.code
    assert found in {"RGB", "image_unreadable", "image_truncated", "image_too_large", "image_unsupported"}


def test_the_digest_depends_on_every_field() -> None:
    fields = {
        "height": 1,
        "width": 1,
        "resize": 1,
        "interpolation": "bicubic",
        "mean": (0.1,) * 3,
        "std": (0.1,) * 3,
        "version": 99,
    }
    digests = {IMAGENET.digest}
    for name, value in fields.items():
        digests.add(Preprocess(**{**{field: getattr(IMAGENET, field) for field in fields}, name: value}).digest)
    assert len(digests) == 1 + len(fields)
    assert IMAGENET.version == preprocess.VERSION
