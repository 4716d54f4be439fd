"""Pairs: by path below the common folder, by name, by bytes."""

import numpy as np
import pyarrow as pa
import pytest

from worker.alignments import pairs


class Named:
    """What `pairs` reads of an index."""

    def __init__(self, *paths, sha256=None):
        self.paths = pa.array(paths)
        self.sha256 = np.array(sha256 or [f"{number:064d}" for number in range(len(paths))], dtype="S64")


def rows(index):
    return np.arange(len(index.paths))


GOOGLE = Named("google/face/1.png", "google/food/2.png", "google/food/3.png", "google/4.png")
TWITTER = Named("set/twitter/food/3.png", "set/twitter/face/1.png", "set/twitter/food/9.png", "set/twitter/x/2.jpg")


@pytest.mark.parametrize(("by", "expected"), [("path", ([0, 2], [1, 0])), ("name", ([0, 1, 2], [1, 3, 0]))])
def test_pairs_in_the_order_of_the_source(by, expected):
    found = pairs.match(GOOGLE, TWITTER, rows(GOOGLE), rows(TWITTER), by)
    assert [side.tolist() for side in found] == list(expected)


def test_rows_that_may_not_be_used_pair_nothing():
    source, target = pairs.match(GOOGLE, TWITTER, np.array([0, 1]), np.array([0, 2]), "path")
    assert (len(source), len(target)) == (0, 0)


def test_a_key_that_is_not_unique_pairs_nothing_even_where_its_other_owner_may_not_be_used():
    doubled = Named("a/1.png", "b/1.png", "b/2.png")
    source, _ = pairs.match(doubled, TWITTER, np.array([0, 2]), rows(TWITTER), "name")
    assert source.tolist() == [2]


def test_by_bytes():
    left, right = Named("a", "b", sha256=["1" * 64, "2" * 64]), Named("x", "y", sha256=["2" * 64, "3" * 64])
    found = pairs.match(left, right, rows(left), rows(right), "sha256")
    assert [side.tolist() for side in found] == [[1], [0]]
