"""Which pictures are copies of which: the one rule that leakage, lineage and advice go by. Torch-free.

Equal bytes are a copy. Other bytes are one where the perceptual hashes are within MAX_BITS *and* what they leave out
agrees: the small pictures in colour, as JPEG and resizing leave them, or the features, as a slight crop leaves them.
Hashes alone take plain drawings for each other (1,641 of 5,000 MNIST digits have a stranger within 4 bits), features
alone images of one class, and neither tells a drawing from the same one in another colour. docs/advice.md has what was
measured. Everything else that looks alike is counted, but nothing is said of it as a fact.

Shape legend: T pictures that are asked about, N known ones, P pairs, S side of a small picture, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.artifact import decoding
from app.errors import NotFound
from worker.attempt.context import RunContext
from worker.data.duplicates import MAX_DISTANCE
from worker.data.phash import NONE
from worker.data.samples import Index, iter_images, load_index

MAX_BITS = MAX_DISTANCE
# Between small pictures: root mean square difference, as a share of the lesser contrast of the two. Of copies as JPEG
# q40 97 % are below 0.14 (photos), of strangers within 4 bits none: the nearest are 0.151 apart.
MAX_APART = 0.14
# Features that agree count only where the pictures are not plainly different: of a network that has learned nothing
# all features point the same way, and MNIST's ones pass 0.98 from 0.32 on.
MIN_COSINE, MAX_APART_CROPPED = 0.98, 0.3
# Known pictures that one is compared with, the nearest hashes first: a copy is among them.
PARTNERS = 8
# Of pairs that only features can tell and whose features nobody has: so many are passed through the backbone at most.
LOOKED_PAIRS = 128
SIDE = 32
_CHUNK_ELEMENTS = 2**24
# Compared at a time: some 25 MB of small pictures.
_PAIRS = 1024

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Float = NDArray[np.float32]
Small = NDArray[np.uint8]
# Small pictures of rows of one dataset, in the order of the rows.
Looker = Callable[[Ints], Small]


@dataclass(frozen=True)
class Pictures:
    """Some images of a stored dataset.

    Args:
        index: of the dataset.
        rows: which.
        feats: of them, raw; NaN where there are none of an image, None where there are of none.

    Shape:
        rows: [N]
        feats: [N, D]
    """

    index: Index
    rows: Ints
    feats: Float | None = None


class Gallery:
    """Indices and small pictures of the project's stored datasets, each read once, only where somebody asks.

    Args:
        context: of the job.
        known: indices that are open already, by dataset.
        extract: features of rows of a dataset, where a backbone is at hand; rows ascending, none twice.
    """

    def __init__(
        self, context: RunContext, known: dict[str, Index], extract: Callable[[Index, Ints], Float] | None = None
    ) -> None:
        self._context, self._known, self._extract = context, dict[str, Index | None](known), extract

    def index(self, dataset: str) -> Index | None:
        """Of a dataset; None where it was deleted, or is none."""
        if dataset not in self._known:
            self._known[dataset] = self._open(dataset)
        return self._known[dataset]

    def small(self, index: Index, rows: Ints) -> Small:
        """Small pictures.

        Shape:
            rows: [N], ascending, none twice
            result: [N, S, S, 3]
        """
        out = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
        storage, limit = self._context.storage, self._context.settings.max_image_pixels
        found = iter_images(index, rows, lambda name: storage.fetch(f"{index.prefix}/{name}"))
        for place, (_, data) in enumerate(found):
            out[place] = small(decoding.decode(data, at_least=2 * SIDE, max_pixels=limit))
        return out

    def cosine(self, one: Index, one_rows: Ints, other: Index, other_rows: Ints) -> Float:
        """Between features of pairs of images, which are extracted for it; NaN where no backbone is at hand.

        Shape:
            one_rows, other_rows: [P]
            result: [P]
        """
        if self._extract is None:
            return np.full(len(one_rows), np.nan, np.float32)
        sides = []
        for index, rows in ((one, one_rows), (other, other_rows)):
            found, place = np.unique(rows, return_inverse=True)
            sides.append(self._extract(index, found)[place])
        return cosine(*sides)

    def _open(self, dataset: str) -> Index | None:
        context = self._context
        own = context.document.dataset
        if own is None:
            return None
        # All of a project's datasets lie side by side.
        prefix = f"{own.prefix.rpartition('/')[0]}/{dataset}"
        folder = context.scratch / f"gallery-{len(self._known)}"
        folder.mkdir()
        try:
            for name in ("index.parquet", "dataset.json"):
                (folder / name).symlink_to(context.storage.fetch(f"{prefix}/{name}"))
            return load_index(folder, prefix)
        except (NotFound, ValueError):
            return None


def small(image: Image.Image) -> Small:
    """An upright RGB image as the rule compares it: [S, S, 3]."""
    shrunk = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(shrunk, np.uint8)


def apart(one_PSS3: Small, other_PSS3: Small) -> Float:
    """How far small pictures are from each other, as a share of the lesser contrast of the two; 0 is equal.

    Shape:
        both [P, S, S, 3], or one picture and many; returns [P]
    """
    one, other = one_PSS3.astype(np.float32), other_PSS3.astype(np.float32)
    inside = (-3, -2, -1)
    off = np.sqrt(np.square(one - other).mean(inside))
    contrast = [np.sqrt(np.square(side - side.mean((-3, -2), keepdims=True)).mean(inside)) for side in (one, other)]
    # A picture of less contrast than a level is plain, and plain pictures look like each other.
    return np.asarray(off / np.maximum(np.minimum(*contrast), 1.0), np.float32)


def agree(apart_P: Float, cosine_P: Float) -> Bools:
    """Of pairs within MAX_BITS, which are copies; a cosine that nobody knows is NaN."""
    return np.asarray((apart_P < MAX_APART) | ((cosine_P > MIN_COSINE) & (apart_P < MAX_APART_CROPPED)))


def near(asked_T: NDArray[np.uint64], known_N: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Pairs within MAX_BITS: places in both, of every asked one its PARTNERS nearest. Plain areas are near to nothing.

    Shape:
        both 64-bit hashes; returns [P] twice
    """
    have_T, have_N = np.flatnonzero(asked_T != NONE), np.flatnonzero(known_N != NONE)
    found: list[tuple[Ints, Ints]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    size = max(1, _CHUNK_ELEMENTS // max(1, len(have_N)))
    for start in range(0, len(have_T), size):
        part = have_T[start : start + size]
        bits = np.bitwise_count(asked_T[part, None] ^ known_N[None, have_N])
        left, right = np.nonzero(bits <= MAX_BITS)
        order = np.lexsort((right, bits[left, right], left))
        left, right = left[order], right[order]
        first = np.searchsorted(left, left)
        kept = np.arange(len(left)) - first < PARTNERS
        found.append((part[left[kept]], have_N[right[kept]]))
    one, other = (np.concatenate(side) for side in zip(*found, strict=True))
    return one, other


def among(gallery: Gallery, asked: Pictures, known: Pictures, done_T: Bools) -> Bools:
    """Which pictures have a copy of other bytes among others.

    Args:
        gallery: shows both.
        asked: about these.
        known: among these.
        done_T: those that need no look, being known as copies already.
    """
    found_T = np.zeros(len(asked.rows), bool)
    left = np.flatnonzero(~done_T)
    one, other = near(asked.index.phash[asked.rows[left]], known.index.phash[known.rows])
    if not len(one):
        return found_T
    one = left[one]
    cosine_P = np.full(len(one), np.nan, np.float32)
    if asked.feats is not None and known.feats is not None:
        cosine_P = cosine(asked.feats[one], known.feats[other])
    sides = [np.unique(rows, return_inverse=True) for rows in (asked.rows[one], known.rows[other])]
    shown = [gallery.small(side.index, rows) for side, (rows, _) in zip((asked, known), sides, strict=True)]
    num_looked = 0
    for start in range(0, len(one), _PAIRS):
        part = slice(start, start + _PAIRS)
        apart_P = apart(*(pictures[place_P[part]] for pictures, (_, place_P) in zip(shown, sides, strict=True)))
        # A slight crop shifts every pixel, and leaves the features. Whoever taught a backbone has none of this one's.
        unsure = np.flatnonzero(np.isnan(cosine_P[part]) & (apart_P >= MAX_APART) & (apart_P < MAX_APART_CROPPED))
        unsure = unsure[: max(0, LOOKED_PAIRS - num_looked)]
        if len(unsure):
            num_looked += len(unsure)
            pairs = asked.rows[one[part][unsure]], known.rows[other[part][unsure]]
            cosine_P[part][unsure] = gallery.cosine(asked.index, pairs[0], known.index, pairs[1])
        found_T[one[part][agree(apart_P, cosine_P[part])]] = True
    return found_T


def cosine(one_PD: Float, other_PD: Float) -> Float:
    """Of the angle between features of pairs; NaN where one of them is zero."""
    length_P = np.linalg.norm(one_PD, axis=1) * np.linalg.norm(other_PD, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((one_PD * other_PD).sum(1) / np.where(length_P > 0, length_P, np.nan), np.float32)
