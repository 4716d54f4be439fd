"""The one decode: ingestion checks, extraction, training and serving all run this code.

No numpy until a 16-bit image needs it: the processes that check an upload's images start in less than half the time.
"""

import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from app.artifact import tags, traps
from app.errors import BadImage

MAX_PIXELS = 100_000_000
# MPO, several JPEGs in one file, is opened by the JPEG reader and has no name of its own here.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "PPM")
MAX_ASPECT = 200
_STARTS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF"}

# We refuse by our own, lower limit before a pixel is decoded; Pillow's warning would only be a second opinion.
Image.MAX_IMAGE_PIXELS = None
tags.guard()
# A line for every broken tag, thousands in a file: what is wrong with an image is told to whoever sent it.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image without decoding its pixels.

    Raises:
        BadImage: not an image of a known format, or more pixels than `max_pixels`.
    """
    try:
        traps.check_icon(data, max_pixels)
        traps.check_copies(data)
        image = Image.open(traps.Pieces(data), formats=FORMATS)
    except UnidentifiedImageError:
        if kind := next((kind for start, kind in _STARTS.items() if data.startswith(start)), None):
            raise BadImage(
                f"expected a whole {kind}; found one of {len(data)} bytes whose header cannot be read; save it again "
                "with an image editor, or send the whole file"
            ) from None
        head = data[:8].hex(" ")
        raise BadImage(
            f"expected one of {', '.join(FORMATS)}; found {len(data)} bytes that start with {head or 'nothing'};"
            " send an image file"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadImage(f"the image's header cannot be read ({error}); save it again with an image editor") from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadImage(
            f"expected at most {max_pixels} pixels; found {width} x {height}; make it smaller, or raise "
            "GRAFT_MAX_IMAGE_PIXELS (of datasets) or GRAFT_MAX_PREDICT_PIXELS (of predictions)",
            code="image_too_large",
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(
            f"expected sides within a factor of {MAX_ASPECT}; found {width} x {height}; crop it",
            code="image_unsupported",
        )
    traps.check(image, data, max_pixels)
    return image


def decode(data: bytes, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Bytes -> upright 8-bit RGB image: first frame, EXIF orientation applied, alpha flattened on white.

    Args:
        data: an encoded image; the type is sniffed from the bytes, never taken from a name.
        at_least: length in pixels that the shorter side must keep. A JPEG of twice that or more is decoded at a reduced
            scale (Pillow's draft mode: 12 megapixels in 58 instead of 172 ms, difference at most 2 levels).
        max_pixels: limit on width x height.

    Raises:
        BadImage: with code image_unreadable, image_truncated, image_too_large or image_unsupported.
    """
    image = open_image(data, max_pixels)
    if at_least is not None and image.format in {"JPEG", "MPO"} and min(image.size) >= 2 * at_least:
        image.draft(image.mode, _draft_size(image.size, at_least))
    try:
        image.load()
        return _flatten(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except OSError as error:
        code = (
            "image_truncated" if "truncated" in str(error) or "premature" in str(error).lower() else "image_unreadable"
        )
        raise BadImage(
            f"the image's pixels cannot be decoded ({error}); save it again or send the whole file", code=code
        ) from error
    except (
        ValueError,
        SyntaxError,
        EOFError,
        TypeError,
        IndexError,
        KeyError,
        OverflowError,
        ZeroDivisionError,
        ArithmeticError,
    ) as error:
        # Pillow's decoders meet broken headers and broken EXIF with whatever Python raises.
        raise BadImage(f"the image's content is broken ({error}); save it again with an image editor") from error


def _draft_size(size: tuple[int, int], at_least: int) -> tuple[int, int]:
    shrink = min(size) / at_least
    return int(size[0] / shrink), int(size[1] / shrink)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode -> RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        import numpy as np

        levels = np.asarray(image).astype(np.int64)
        deep = image.mode != "I" or levels.max(initial=0) > 255
        return Image.fromarray(np.clip(levels >> 8 if deep else levels, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage(
            "expected integer pixels; found floating point; convert the image to 8 or 16 bits", code="image_unsupported"
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        # Pasting through the alpha is bit-equal to compositing, and needs one canvas instead of three.
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(image, mask=image)
        return canvas
    return image.convert("RGB")
