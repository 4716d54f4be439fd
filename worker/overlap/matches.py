"""Which of some items the teachers of a version have met, and by what they are recognised. Torch-free.

Sure is the same sample, the same bytes, or a copy by `worker.overlap.copies`, which has to see both pictures: those
of a dataset that was deleted since are known by their hashes alone. Hashes that are within 4 bits of each other are
counted as looking alike, and no more is said of them.

Shape legend: T items that are asked about, N items of a teacher.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.seen import DIGEST_BYTES, ID_BYTES, Seen, What
from worker.contract.task import Float, Rows
from worker.data.samples import Index
from worker.overlap import copies
from worker.overlap.copies import Gallery, Pictures

Marks = NDArray[np.bool_]
# Features of some rows of one dataset.
Known = tuple[Rows, Float]


@dataclass(frozen=True)
class Met:
    """What one teacher has met.

    Shape:
        id_T, bytes_T, look_T: [T], by each sign alone
        copy_T: [T], other bytes that are surely the same picture
    """

    seen: Seen
    id_T: Marks
    bytes_T: Marks
    look_T: Marks
    copy_T: Marks

    @property
    def sure_T(self) -> Marks:
        """What may be said as a fact."""
        return self.id_T | self.bytes_T | self.copy_T

    def describe(self) -> dict[str, Any]:
        """Of a teacher that has met some: how many surely, by which sign, and how many more look alike."""
        return {
            **self.seen.describe(),
            "backbone": self.seen.backbone or None,
            "num_items": int(self.sure_T.sum()),
            "num_by_id": int(self.id_T.sum()),
            "num_by_sha256": int(self.bytes_T.sum()),
            "num_by_phash": int(self.look_T.sum()),
            "num_by_copy": int(self.copy_T.sum()),
            "num_look_alike": int((self.look_T & ~self.sure_T).sum()),
        }


@dataclass(frozen=True)
class Matches:
    """What all teachers have met of the same items."""

    num_items: int
    each: tuple[Met, ...]

    def of(self, *, labelled: bool | None = None, chained: bool | None = None) -> "Matches":
        """By teachers of one kind: those whose labels were learned from, those that an own backbone brought along."""
        kept = (
            one
            for one in self.each
            if labelled in (None, one.seen.labelled) and chained in (None, bool(one.seen.backbone))
        )
        return Matches(self.num_items, tuple(kept))

    @property
    def by_id_T(self) -> Marks:
        """The same sample."""
        return self._any(one.id_T for one in self.each)

    @property
    def by_bytes_T(self) -> Marks:
        """The same bytes."""
        return self._any(one.bytes_T for one in self.each)

    @property
    def by_look_T(self) -> Marks:
        """A hash within 4 bits, which alone is no fact."""
        return self._any(one.look_T for one in self.each)

    @property
    def by_copy_T(self) -> Marks:
        """Other bytes of the same picture."""
        return self._any(one.copy_T for one in self.each)

    @property
    def sure_T(self) -> Marks:
        """What may be said as a fact."""
        return self._any(one.sure_T for one in self.each)

    def counts(self) -> dict[str, int]:
        """How many by each sign."""
        return {
            "num_by_id": int(self.by_id_T.sum()),
            "num_by_sha256": int(self.by_bytes_T.sum()),
            "num_by_phash": int(self.by_look_T.sum()),
            "num_by_copy": int(self.by_copy_T.sum()),
            "num_look_alike": int((self.by_look_T & ~self.sure_T).sum()),
        }

    def seen_in(self) -> list[dict[str, Any]]:
        """One row for each teacher that has surely met some of the items."""
        return [one.describe() for one in self.each if one.sure_T.any()]

    def _any(self, marks: Iterable[Marks]) -> Marks:
        found_T = np.zeros(self.num_items, bool)
        for mark_T in marks:
            found_T |= mark_T
        return found_T


def of_rows(index: Index, rows: Rows, what: What, dataset: str) -> Seen:
    """Some samples of a dataset as a teacher's set."""
    sha256 = bytes.fromhex(index.sha256[rows].tobytes().decode())
    names = np.ascontiguousarray(index.ids[rows]).view(np.uint8).reshape(len(rows), 22)[:, 2:]
    ids = bytes.fromhex(names.tobytes().decode())
    return Seen(
        what,
        dataset,
        "",
        np.frombuffer(ids, np.uint8).reshape(len(rows), ID_BYTES),
        np.frombuffer(sha256, np.uint8).reshape(len(rows), DIGEST_BYTES),
        index.phash[rows].astype(np.uint64),
    )


def rows_of(index: Index, one: Seen) -> Rows:
    """Where a teacher's samples are in a dataset, as far as they are there."""
    wanted = {f"s_{name.tobytes().hex()}".encode() for name in one.ids}
    return np.array([row for row, name in enumerate(index.ids.tolist()) if name in wanted], np.int64)


def match(
    asked: Pictures, teachers: Sequence[Seen], gallery: Gallery | None, feats: dict[str, Known] | None = None
) -> Matches:
    """Which of some items the teachers have met.

    Args:
        asked: the items.
        teachers: sets of what was learned from.
        gallery: shows pictures; None where nobody can look at any.
        feats: features of what taught, under the same backbone as those of `asked`, by dataset.
    """
    own = of_rows(asked.index, asked.rows, "dataset", "")
    met = []
    for one in teachers:
        same_T, bytes_T = _rows_in(own.ids, one.ids[one.ids.any(1)]), _rows_in(own.sha256, one.sha256)
        look_T = np.zeros(len(asked.rows), bool)
        look_T[copies.near(own.phash, one.phash)[0]] = True
        copy_T = np.zeros(len(asked.rows), bool)
        if gallery is not None and (look_T & ~(same_T | bytes_T)).any():
            taught = _pictures(gallery, one, (feats or {}).get(one.id))
            if taught is not None:
                copy_T = copies.among(gallery, asked, taught, same_T | bytes_T)
        met.append(Met(one, same_T, bytes_T, look_T, copy_T))
    return Matches(len(asked.rows), tuple(met))


def _pictures(gallery: Gallery, one: Seen, known: Known | None) -> Pictures | None:
    """A teacher's items, as far as their dataset is there."""
    index = gallery.index(one.id) if one.what != "class_images" else None
    if index is None:
        return None
    rows = rows_of(index, one)
    if known is None or not len(rows):
        return Pictures(index, rows)
    order = np.argsort(known[0])
    place = np.searchsorted(known[0], rows, sorter=order).clip(max=len(order) - 1)
    feats = np.asarray(known[1][order[place]], np.float32).copy()
    feats[known[0][order[place]] != rows] = np.nan
    return Pictures(index, rows, feats)


def _rows_in(asked_TB: NDArray[np.uint8], known_NB: NDArray[np.uint8]) -> Marks:
    """Which rows of bytes are among others. As texts numpy sorts them; of equal width, trailing zeros tell no lie."""
    width = f"S{asked_TB.shape[1]}"
    left, right = (np.ascontiguousarray(rows).view(width).ravel() for rows in (asked_TB, known_NB))
    return np.isin(left, right)
