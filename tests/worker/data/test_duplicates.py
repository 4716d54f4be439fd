"""Grouping against all pairs and a textbook union-find."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from worker.data.decode_child import grey
from worker.data.duplicates import MAX_DISTANCE, group, near_pairs
from worker.data.phash import NONE, phash
from worker.data.records import AT_ONCE, Records
from worker.data.spool import Stored


def leading(names: list[int]) -> NDArray[np.uint64]:
    digests = (hashlib.sha256(str(name).encode()).digest() for name in names)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)


def slow_groups(names: list[int], hashes: list[int]) -> list[int]:
    """Numbers in order of first appearance, by flooding over all pairs."""
    found: list[int] = [-1] * len(names)
    number = 0
    for start in range(len(names)):
        if found[start] >= 0:
            continue
        waiting = [start]
        while waiting:
            one = waiting.pop()
            if found[one] >= 0:
                continue
            found[one] = number
            for other in range(len(names)):
                is_near = (
                    NONE not in {hashes[one], hashes[other]}
                    and (hashes[one] ^ hashes[other]).bit_count() <= MAX_DISTANCE
                )
                if names[one] == names[other] or is_near:
                    waiting.append(other)
        number += 1
    return found


@st.composite
def hash_lists(draw: st.DrawFn) -> list[int]:
    """Hashes around a few centres, from equal to 7 bits away."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    hashes = []
    for _ in range(draw(st.integers(0, 25))):
        value = draw(st.sampled_from([*centres, NONE]))
        for bit in draw(st.lists(st.integers(0, 63), max_size=7)) if value != NONE else []:
            value ^= 1 << bit
        hashes.append(value)
    return hashes


@settings(max_examples=200, deadline=None)
@given(hashes=hash_lists(), data=st.data())
def test_groups_are_those_of_all_pairs(hashes: list[int], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.integers(0, 30), min_size=len(hashes), max_size=len(hashes)))
    found = group(leading(names), np.array(hashes, dtype=np.uint64))
    assert found.tolist() == slow_groups(names, hashes)


def test_every_pair_within_four_bits_is_found() -> None:
    """All ways to change up to 2 bits, and random ones of 3, 4 and 5."""
    rng = np.random.default_rng(0)
    for distance in (1, 2, 3, 4, 5):
        for _ in range(60):
            one = int(rng.integers(1, 2**63))
            other = one
            for bit in rng.choice(64, distance, replace=False):
                other ^= 1 << int(bit)
            left, right = near_pairs(np.array(sorted({one, other}), dtype=np.uint64))
            assert (len(left) > 0) == (len(right) > 0) == (distance <= 4)


def test_many_hashes_are_grouped_without_comparing_all() -> None:
    hashes = np.random.default_rng(0).integers(1, 2**64 - 1, 100_000, dtype=np.uint64)
    hashes[50_000:] = hashes[:50_000] ^ np.uint64(0b1011 << 20)
    found = group(leading(list(range(100_000))), hashes)
    assert (found[:50_000] == found[50_000:]).all()
    assert found.max() == 49_999


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    patches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def distance(one: Image.Image, other: Image.Image) -> int:
    return int(phash(grey(one))[0] ^ phash(grey(other))[0]).bit_count()


def test_the_hash_is_the_sign_of_the_low_frequencies() -> None:
    image = picture(3, (32, 32))
    low = dctn(np.asarray(image.convert("L"), dtype=np.float64))[:8, :8].ravel()
    # scipy weighs all coefficients of a row and column alike up to the first, which no comparison sees.
    bits = "".join("1" if value > np.median(low) else "0" for value in low)
    assert phash(grey(image)) == [int(bits, 2)]


@pytest.mark.parametrize("seed", range(8))
def test_copies_of_a_picture_are_near_and_others_far(seed: int) -> None:
    image = picture(seed)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=50)
    copies = [
        image.resize((48, 40), Image.Resampling.LANCZOS),
        image.resize((300, 250), Image.Resampling.BICUBIC),
        Image.open(out).convert("RGB"),
        ImageEnhance.Brightness(image).enhance(0.9),
        image.convert("L").convert("RGB"),
    ]
    assert max(distance(image, copy) for copy in copies) <= MAX_DISTANCE
    assert distance(image, picture(seed + 100)) > 8
    assert distance(image, image.rotate(180)) > 8


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_plain_areas_have_no_hash(colour: tuple[int, int, int]) -> None:
    assert phash(grey(Image.new("RGB", (64, 64), colour))) == [NONE]


def test_many_hashes_at_once_are_those_of_each(tmp_path: Path) -> None:
    """Of more images than are hashed together, some of which cannot be used."""
    images = [picture(seed) for seed in range(AT_ONCE + 9)]
    images[7] = Image.new("RGB", (9, 9))
    alone = np.concatenate([phash(grey(image)) for image in images])
    assert (phash(b"".join(map(grey, images))) == alone).all()
    with Records(tmp_path) as records:
        for row, image in enumerate(images):
            records.add(f"{row}.png", Stored(0, 1, bytes(32)))
            if row % 5:
                records.set_checked(row, 96, 80, grey(image))
        expected_N = np.where(np.arange(len(images)) % 5, alone, np.uint64(NONE))
        assert records.phash.tolist() == expected_N.tolist()
        records.set_checked(0, 96, 80, grey(images[0]))
        assert records.phash[0] == alone[0]
