"""TrivialAugmentWide (Mueller and Hutter, arXiv 2103.10158, figure 1 and table 1) by torchvision's own operations.

Departures: the draw comes from a generator of the image instead of torch's global one, so that views can be cached and
threads do not disturb each other; and a group of operations that a label minds is left out.
"""

import functools
from typing import Any, Protocol

from PIL import Image
from torchvision.transforms.autoaugment import InterpolationMode, TrivialAugmentWide, _apply_op

BINS = 31
GROUPS = {
    "geometric": ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    "colour": ("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
}


class Draws(Protocol):
    """Whole numbers below a bound, such as numpy's generator gives."""

    def integers(self, high: int, /) -> Any:
        """From 0 to `high` - 1."""


@functools.cache
def _space() -> dict[str, tuple[Any, bool]]:
    """Strengths of each operation, and whether half of them are turned round."""
    space: dict[str, tuple[Any, bool]] = TrivialAugmentWide(BINS)._augmentation_space(BINS)
    return space


def apply(image: Image.Image, draws: Draws, groups: tuple[str, ...], *, identity: bool = True) -> Image.Image:
    """One random operation of the groups at a random strength.

    Args:
        image: at the network's size.
        draws: decides operation, strength and sign, in torchvision's order.
        groups: keys of GROUPS.
        identity: whether the image may stay as it is, as one operation among the others.
    """
    names = [*(["Identity"] if identity else []), *(name for group in groups for name in GROUPS[group])]
    name = names[int(draws.integers(len(names)))]
    strengths, is_signed = _space()[name]
    strength = float(strengths[int(draws.integers(len(strengths)))]) if strengths.ndim else 0.0
    if is_signed and int(draws.integers(2)):
        strength = -strength
    changed: Image.Image = _apply_op(image, name, strength, interpolation=InterpolationMode.NEAREST, fill=None)
    return changed
