import numpy as np
import pytest
from PIL import Image

from app.artifact import preprocess
from app.artifact.preprocess import Preprocess
from worker.training import augment
from worker.training.augment import CachedView

SHAPE = Preprocess(32, 32, 32, "bicubic", (0.5,) * 3, (0.5,) * 3)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (10, 300), (301, 8)])
def test_boxes_lie_inside_and_have_the_area_that_was_asked_for(width: int, height: int) -> None:
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        left, top, right, bottom = augment.crop_box(width, height, generator)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        shares.append((right - left) * (bottom - top) / (width * height))
    assert max(shares) <= 1 + 1e-9
    if width == height:
        assert min(shares) > 0.45
        assert 0.68 < np.mean(shares) < 0.78


def test_a_view_depends_on_digest_and_number_alone() -> None:
    view = CachedView(1, SHAPE, True)
    first = np.asarray(view(PICTURE, "a" * 64))
    np.testing.assert_array_equal(first, np.asarray(view(PICTURE, "a" * 64)))
    assert (first != np.asarray(view(PICTURE, "b" * 64))).any()
    assert (first != np.asarray(CachedView(2, SHAPE, True)(PICTURE, "a" * 64))).any()
    assert view.name != CachedView(1, SHAPE, False).name != CachedView(2, SHAPE, False).name


def test_a_view_passes_the_preprocessing_unchanged() -> None:
    image = CachedView(3, SHAPE, False)(PICTURE, "c" * 64)
    assert image.size == (32, 32)
    np.testing.assert_array_equal(preprocess.apply(image, SHAPE), np.asarray(image))


def test_half_of_the_views_are_mirrored_where_that_is_allowed() -> None:
    left = Image.fromarray(np.repeat(np.linspace(255, 0, 64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2))

    def num_mirrored(flip: bool) -> int:
        views = [np.asarray(augment.crop_and_flip(left, draw, SHAPE, flip)).astype(int) for draw in range(200)]
        return sum(bool(view[:, -1].mean() > view[:, 0].mean()) for view in views)

    assert num_mirrored(False) == 0
    assert 70 < num_mirrored(True) < 130


def test_shifts_equal_a_loop() -> None:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (20, 16, 24, 3), dtype=np.uint8)
    draws = generator.integers(0, 2**63, 20, dtype=np.uint64)
    moved = augment.shifted(images, draws)
    seen = set()
    for item, draw in enumerate(draws.tolist()):
        down, right = draw % 5 - 2, draw // 65_536 % 7 - 3
        seen.add((down, right))
        for row in range(16):
            for column in range(24):
                source = min(max(row + down, 0), 15), min(max(column + right, 0), 23)
                assert (moved[item, row, column] == images[item, source[0], source[1]]).all()
    assert len(seen) > 10
