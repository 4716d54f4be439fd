import colorsys

import numpy as np
import pytest

from app.backbones import find
from worker.evaluate import corruptions, out_of_distribution
from worker.evaluate.corruptions import CORRUPTIONS


@pytest.fixture
def images() -> np.ndarray:
    """A photo-like gradient with edges, and one black image."""
    rows, columns = np.mgrid[0:64, 0:64]
    photo = np.stack([rows * 3, columns * 3, (rows // 8 % 2) * 200], -1).astype(np.uint8)
    return np.stack([photo, np.zeros_like(photo)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_mild_and_repeats(name: str, images: np.ndarray) -> None:
    _, change = CORRUPTIONS[name]
    before = images.copy()
    found = change(images, 5)
    assert found.shape == images.shape
    assert found.dtype == np.uint8
    assert (images == before).all()
    assert (found == change(images, 5)).all()
    moved = np.abs(found[0].astype(int) - images[0]).mean()
    assert 0.5 < moved < 40


def test_noise_has_its_deviation_and_depends_on_the_seed() -> None:
    grey = np.full((1, 100, 100, 3), 128, np.uint8)
    found = corruptions.noise(grey, 0).astype(float) - 128
    assert found.std() == pytest.approx(255 * corruptions.NOISE_DEVIATION, rel=0.02)
    assert (corruptions.noise(grey, 1) != corruptions.noise(grey, 0)).any()


def test_brightness_lifts_the_value_alone(images: np.ndarray) -> None:
    found = corruptions.brightness(images)
    for old, new in zip(images[0].reshape(-1, 3)[::97], found[0].reshape(-1, 3)[::97], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(old / 255))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + corruptions.BRIGHTER, 1.0))
        if value > 0:
            assert new / 255 == pytest.approx(expected, abs=0.003)
    assert (found[1] == round(255 * corruptions.BRIGHTER)).all()


def test_patterns_differ_and_repeat() -> None:
    backbone = find("timm/tf_efficientnet_lite0")
    assert backbone is not None
    shape = backbone.preprocess
    found = out_of_distribution.draw(shape, 10, seed=0)
    assert found.shape == (10, shape.height, shape.width, 3)
    assert len({image.tobytes() for image in found}) == 10
    assert (found == out_of_distribution.draw(shape, 10, seed=0)).all()
    assert (found != out_of_distribution.draw(shape, 10, seed=1)).any()
