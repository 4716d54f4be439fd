"""Groups of copies: the same bytes, or perceptual hashes within 4 bits of each other.

At 8 bits, unrelated drawings collide. Of 6 bands of a 64-bit hash, a distance of 4 leaves at least two untouched: only
hashes that agree on two whole bands (21 bits) are compared, found by 15 sorts. So 100,000 images take seconds.
"""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.data.phash import NONE

MAX_DISTANCE = 4
# First bit and number of bits.
_BANDS = ((0, 11), (11, 11), (22, 11), (33, 11), (44, 10), (54, 10))


def group(leading_N: NDArray[np.uint64], phash_N: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Group numbers from 0 without gaps, in order of first appearance.

    Args:
        leading_N: first eight bytes of the digests. That two of a million different images share them has a chance of
            one in forty million, and whoever makes such two has them in one split, no more.
        phash_N: perceptual hashes.

    Shape:
        result: [N]
    """
    num = len(phash_N)
    copy, first, _ = repeated(leading_N)
    one, other = _same_picture(phash_N)
    root_N = _components(num, np.concatenate([copy, one]), np.concatenate([first, other]))
    _, group_N = np.unique(root_N, return_inverse=True)
    return group_N.astype(np.int64)


def _same_picture(phash_N: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of images whose hashes are equal or near, which join all that are."""
    # Plain areas have no hash: only equal bytes make them copies.
    hashed = np.flatnonzero(phash_N != NONE)
    copy, first, different = repeated(phash_N[hashed])
    left, right = near_pairs(phash_N[hashed[different]])
    return hashed[np.concatenate([copy, different[left]])], hashed[np.concatenate([first, different[right]])]


def repeated(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Indices of elements that came before, in order, of the first that equals each, and of all that came first."""
    order = np.argsort(values, kind="stable")
    is_first = np.ones(len(values), dtype=bool)
    is_first[1:] = values[order[1:]] != values[order[:-1]]
    first = order[is_first]
    copy, original = order[~is_first], first[np.cumsum(is_first)[~is_first] - 1]
    in_order = np.argsort(copy)
    return copy[in_order], original[in_order], first


def near_pairs(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of indices of distinct hashes within MAX_DISTANCE bits; a pair may come more than once."""
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for one, other in combinations(_BANDS, 2):
        key = _bits(hashes, *one) << np.uint32(other[1]) | _bits(hashes, *other)
        order = np.argsort(key, kind="stable")
        key, sorted_hashes = key[order], hashes[order]
        # All that agree on both bands stand together; compare each with the one `step` behind it while any still
        # agree.
        here = np.arange(len(key) - 1)
        step = 1
        while len(here := here[here + step < len(key)]):
            here = here[key[here] == key[here + step]]
            near = here[np.bitwise_count(sorted_hashes[here] ^ sorted_hashes[here + step]) <= MAX_DISTANCE]
            found.append((order[near], order[near + step]))
            step += 1
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


def _bits(hashes: NDArray[np.uint64], shift: int, width: int) -> NDArray[np.uint32]:
    return (hashes >> np.uint64(shift) & np.uint64((1 << width) - 1)).astype(np.uint32)


def _components(num: int, edges_a: NDArray[np.int64], edges_b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest member of each node's component: union-find over whole arrays, hooking roots and halving paths."""
    root = np.arange(num)
    while True:
        a, b = root[edges_a], root[edges_b]
        differ = a != b
        if not differ.any():
            return root
        edges_a, edges_b = edges_a[differ], edges_b[differ]
        low, high = np.minimum(a[differ], b[differ]), np.maximum(a[differ], b[differ])
        np.minimum.at(root, high, low)
        while not np.array_equal(root, halved := root[root]):
            root = halved
