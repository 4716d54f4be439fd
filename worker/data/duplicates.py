"""Groups of copies: the same bytes, or perceptual hashes within 4 bits of each other.

At 8 bits, unrelated drawings collide. Of 6 bands of a 64-bit hash, a distance of 4 leaves at least two untouched: only
hashes that agree on two whole bands (21 bits) are compared, found by 15 sorts. So 100,000 images take seconds.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from worker.data.phash import NONE

MAX_DISTANCE = 4
_BANDS = (11, 11, 11, 11, 10, 10)


def group(sha256_N32: NDArray[np.uint8], phash_N: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Group numbers from 0 without gaps, in order of first appearance.

    Shape:
        result: [N]
    """
    num = len(phash_N)
    same_bytes_N = _first_equal(np.ascontiguousarray(sha256_N32).view("V32").ravel())
    # Plain areas have no hash: only equal bytes make them copies.
    hashed = np.flatnonzero(phash_N != NONE)
    hashes, inverse = np.unique(phash_N[hashed], return_inverse=True)
    first_of_hash = np.full(len(hashes), num, dtype=np.int64)
    np.minimum.at(first_of_hash, inverse, hashed)
    left, right = near_pairs(hashes)
    root_N = _components(
        num,
        np.concatenate([np.arange(num), hashed, first_of_hash[left]]),
        np.concatenate([same_bytes_N, first_of_hash[inverse], first_of_hash[right]]),
    )
    _, group_N = np.unique(root_N, return_inverse=True)
    return group_N.astype(np.int64)


def near_pairs(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of indices of distinct hashes within MAX_DISTANCE bits; a pair may come more than once."""
    bands = _bands(hashes)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for one, other in combinations(range(len(_BANDS)), 2):
        key = (bands[one] << np.uint32(_BANDS[other])) | bands[other]
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


def _bands(hashes: NDArray[np.uint64]) -> list[NDArray[np.uint32]]:
    bands, shift = [], 0
    for width in _BANDS:
        bands.append(((hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.uint32))
        shift += width
    return bands


def _first_equal(keys: NDArray[np.void]) -> NDArray[np.int64]:
    """Index of the first equal element."""
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    words = keys.view(np.uint64).reshape(len(keys), -1)
    order = np.lexsort(words.T)
    starts = np.zeros(len(keys), dtype=bool)
    starts[0] = True
    for word in words.T:
        sorted_word = word[order]
        starts[1:] |= sorted_word[1:] != sorted_word[:-1]
    # lexsort is stable, so the first of a run is the first that appeared.
    first_N = np.empty(len(keys), dtype=np.int64)
    first_N[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return first_N


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
