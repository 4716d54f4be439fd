"""An index without files, for searches that only read arrays."""

import hashlib

import numpy as np
import pyarrow as pa

from worker.data import labels
from worker.data.duplicates import group
from worker.data.samples import Index
from worker.data.splits import SPLITS


def index(names, splits, hashes=None, digests=None, columns=None):
    """One sample for each name (its label; None for none); hashes and digests are all different unless given."""
    num = len(names)
    rng = np.random.default_rng(0)
    hashes = rng.integers(1, 2**63, num, dtype=np.uint64) if hashes is None else np.array(hashes, np.uint64)
    digests = [f"{place:064d}" for place in range(num)] if digests is None else digests
    column = labels.of_names("label", names) if any(name is not None for name in names) else labels.unlabelled(num)
    sha = np.frombuffer(b"".join(hashlib.sha256(digest.encode()).digest() for digest in digests), np.uint8)
    zeros = np.zeros(num, np.int32)
    return Index(
        ids=np.array([f"s{place:021d}" for place in range(num)], "S22"),
        paths=pa.array([f"{name}/{place}.png" for place, name in enumerate(names)]),
        columns=columns or (column,),
        split=np.array([SPLITS.index(split) for split in splits], np.int8),
        sha256=np.array(digests, "S64"), group=group(sha.view(">u8").reshape(num, 4)[:, 0].astype(np.uint64), hashes),
        width=zeros.astype(np.uint32), height=zeros.astype(np.uint32), phash=hashes,
        file=zeros, files=(), row_group=zeros, row=zeros, description={"task": "classification"}, prefix="",
    )  # fmt: skip


def pictures(places):
    """What shows a row: rows of equal places show one picture, others are as unlike as noise."""

    def look(rows):
        drawn = [np.random.default_rng(places[row]).integers(0, 256, (32, 32, 3), np.uint8) for row in rows.tolist()]
        return np.stack(drawn)

    return look


def alike(rows):
    """All images are one drawing with a little noise: near enough that features decide, too far to be sure without."""
    ground = np.random.default_rng(0).integers(60, 196, (32, 32, 3))
    noise = [np.random.default_rng(int(row)).integers(-11, 12, ground.shape) for row in rows]
    return (ground + np.stack(noise)).astype(np.uint8)
