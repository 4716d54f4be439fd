"""Bodies in gzip, piece by piece: whatever their size, what comes out is what went in, and is counted."""

import gzip
import random

import pytest

from app.api.oip.compression import PIECE_BYTES, inflate
from app.errors import BadRequest, Overloaded, TooLarge

LIMIT = 4 * PIECE_BYTES


def taken(body):
    counts = []
    return inflate(body, "gzip", LIMIT, counts.append), counts


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, LIMIT])
def test_what_comes_out_is_what_went_in(size):
    for plain in (bytes(size), random.Random(size).randbytes(size)):
        packed = gzip.compress(plain, 1)
        found, counts = taken(packed)
        assert found == plain
        assert sum(counts) == max(0, size - len(packed))
        for more in (b"a", bytes(2 * PIECE_BYTES)):
            with pytest.raises(BadRequest, match="more behind its end"):
                taken(packed + more)
        with pytest.raises(BadRequest, match="cut off"):
            taken(packed[:-1])


def test_no_more_is_inflated_than_there_is_room_for():
    with pytest.raises(TooLarge):
        taken(gzip.compress(bytes(LIMIT + 1)))
    counts = []

    def take(number):
        counts.append(number)
        if len(counts) == 2:
            raise Overloaded("full")

    with pytest.raises(Overloaded):
        inflate(gzip.compress(bytes(LIMIT)), "gzip", LIMIT, take)
    assert sum(counts) <= 2 * PIECE_BYTES
