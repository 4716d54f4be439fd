"""Random changes of images that keep their label, each decided by a number per image, never by a global generator.

So an augmented view can be cached by the image's content, and a resumed run sees what the undisturbed one would have.

Shape legend: N images, H x W pixels.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.artifact.preprocess import Preprocess
from worker.training import trivial

SCALE = (0.5, 1.0)
RATIO = (3 / 4, 4 / 3)
MAX_SHIFT = 1 / 8

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Box = tuple[float, float, float, float]


def digest_draw(sha256: str, view: int) -> int:
    """The number that decides view `view` of an image, from its content alone."""
    return int.from_bytes(hashlib.sha256(f"{sha256}/{view}".encode()).digest()[:8], "little")


def crop_box(width: int, height: int, generator: np.random.Generator, scale: tuple[float, float] = SCALE) -> Box:
    """Random resized crop's rectangle (Szegedy et al., arXiv 1409.4842, section 6), as torchvision draws it.

    Departure: one draw, made smaller where it does not fit, instead of up to ten draws.

    Args:
        width: of the image, pixels.
        height: of the image, pixels.
        generator: decides.
        scale: smallest and largest share of the image's area.

    Returns:
        left, top, right, bottom.
    """
    area = width * height * generator.uniform(*scale)
    ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    box_width, box_height = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left = generator.uniform(0, width - box_width)
    top = generator.uniform(0, height - box_height)
    return left, top, min(left + box_width, width), min(top + box_height, height)


def crop_and_flip(
    image: Image.Image, draw: int, shape: Preprocess, flip: bool, groups: tuple[str, ...] = ()
) -> Image.Image:
    """Random resized crop to the network's input, mirrored for half of the draws where `flip` allows it.

    Then one operation of TrivialAugment where `groups` names any.
    """
    generator = np.random.default_rng(draw)
    box = crop_box(*image.size, generator)
    view = image.resize((shape.width, shape.height), _FILTERS[shape.interpolation], box=box)
    view = mirror(view) if flip and generator.random() < 0.5 else view
    return trivial.apply(view, generator, groups) if groups else view


def mirror(image: Image.Image) -> Image.Image:
    """Left becomes right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@dataclass(frozen=True, slots=True)
class CachedView:
    """One augmented view of an image as `worker.backbones.features` wants it: decided by the image's digest alone.

    Its result already has the input's size, so `preprocess.apply` leaves it as it is; `shape` has no margin.
    """

    number: int
    shape: Preprocess
    flip: bool
    groups: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Part of the features' key."""
        return "-".join([f"augment-{self.number}", *(["flip"] if self.flip else []), *self.groups])

    def __call__(self, image: Image.Image, sha256: str) -> Image.Image:
        """The view of one image."""
        return crop_and_flip(image, digest_draw(sha256, self.number), self.shape, self.flip, self.groups)


def shifted(images_NHWC: NDArray[Any], draws_N: NDArray[np.uint64], max_share: float = MAX_SHIFT) -> NDArray[Any]:
    """Each image moved by up to `max_share` of its sides, its border repeated: harmless for letters and photos alike.

    Shape:
        images_NHWC: [N, H, W, 3]
        draws_N: [N]
        result: [N, H, W, 3]
    """
    height, width = images_NHWC.shape[1:3]
    down, right = max(1, round(height * max_share)), max(1, round(width * max_share))
    padded = np.pad(images_NHWC, ((0, 0), (down, down), (right, right), (0, 0)), mode="edge")
    top_N = (draws_N % np.uint64(2 * down + 1)).astype(np.int64)
    left_N = (draws_N // np.uint64(65_536) % np.uint64(2 * right + 1)).astype(np.int64)
    moved = np.empty_like(images_NHWC)
    for item, (top, left) in enumerate(zip(top_N, left_N, strict=True)):
        moved[item] = padded[item, top : top + height, left : left + width]
    return moved
