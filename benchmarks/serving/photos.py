"""JPEG photos as phones and cameras make them: 400 to 4000 px wide, enlarged from a set of real photos."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

MIN_SIDE, MAX_SIDE, QUALITY = 400, 4000, 88


def make(archive: Path, number: int, seed: int = 0) -> list[bytes]:
    """Encoded photos, their longer sides spread evenly on a logarithmic scale.

    Args:
        archive: a zip of images.
        number: of photos.
        seed: of the choice; the same seed gives the same bytes.
    """
    chance = np.random.default_rng(seed)
    sides = np.exp(np.linspace(np.log(MIN_SIDE), np.log(MAX_SIDE), number))
    found = []
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg")))
        for name, side in zip(chance.choice(names, number), chance.permutation(sides), strict=True):
            found.append(_enlarged(file.read(str(name)), int(side), chance))
    return found


def of_size(archive: Path, number: int, size: tuple[int, int], seed: int = 0) -> list[bytes]:
    """Photos of one size in pixels, width and height."""
    chance = np.random.default_rng(seed)
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".png", ".jpg", ".jpeg")))
        return [_encoded(_opened(file.read(str(name))).resize(size), chance) for name in chance.choice(names, number)]


def _enlarged(data: bytes, side: int, chance: np.random.Generator) -> bytes:
    image = _opened(data)
    factor = side / max(image.size)
    width, height = (max(1, round(length * factor)) for length in image.size)
    return _encoded(image.resize((width, height), Image.Resampling.BICUBIC), chance)


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(image, mask=image)
    return canvas


def _encoded(image: Image.Image, chance: np.random.Generator) -> bytes:
    """With a sensor's noise: what is smooth would decode faster than a photo does."""
    pixels = np.asarray(image, np.int16)
    noisy = np.clip(pixels + chance.normal(0, 4, pixels.shape).astype(np.int16), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
