"""Mild corruptions of images: what another camera, a bad connection or a dull day does to them. No torch.

Severity 1 of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261) for four of its kinds, with its constants, on
images as the network takes them. Its blur is meant for 224 pixels; ours goes with the image's side.

Shape legend: N images, H x W pixels.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Images = NDArray[np.uint8]

NOISE_DEVIATION = 0.08
BLUR_RADIUS, BLUR_SIDE = 1.0, 224
JPEG_QUALITY = 25
BRIGHTER = 0.1


def noise(images_NHW3: Images, seed: int) -> Images:
    """Normal noise on every channel."""
    drawn = np.random.default_rng(seed).normal(0.0, 255 * NOISE_DEVIATION, images_NHW3.shape)
    return np.clip(np.rint(images_NHW3 + drawn), 0, 255).astype(np.uint8)


def blur(images_NHW3: Images) -> Images:
    """A Gaussian blur."""
    radius = BLUR_RADIUS * min(images_NHW3.shape[1:3]) / BLUR_SIDE
    return _each(images_NHW3, lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def jpeg(images_NHW3: Images) -> Images:
    """Compressed hard, and opened again."""
    return _each(images_NHW3, _compressed)


def brightness(images_NHW3: Images) -> Images:
    """More value at the same hue and saturation."""
    scaled = images_NHW3.astype(np.float64) / 255
    value = scaled.max(-1, keepdims=True)
    brighter = np.minimum(value + BRIGHTER, 1.0)
    # Black has neither hue nor saturation: it becomes grey.
    factor = np.divide(brighter, value, out=np.zeros_like(value), where=value > 0)
    lifted = np.where(value > 0, scaled * factor, BRIGHTER)
    found: Images = np.rint(255 * lifted).astype(np.uint8)
    return found


# By name: what it does, for people, and the function of images and a seed.
CORRUPTIONS: dict[str, tuple[str, Callable[[Images, int], Images]]] = {
    "noise": (f"normal noise of deviation {NOISE_DEVIATION:g}, of a range of 1", noise),
    "blur": (f"Gaussian blur of {BLUR_RADIUS:g} pixel at {BLUR_SIDE}", lambda images, _: blur(images)),
    "jpeg": (f"JPEG of quality {JPEG_QUALITY}", lambda images, _: jpeg(images)),
    "brightness": (f"value {BRIGHTER:g} higher, of a range of 1", lambda images, _: brightness(images)),
}


def _each(images_NHW3: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images_NHW3])


def _compressed(image: Image.Image) -> Image.Image:
    held = io.BytesIO()
    image.save(held, "JPEG", quality=JPEG_QUALITY)
    return Image.open(held).convert("RGB")
