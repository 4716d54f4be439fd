"""Which cached features are still of somebody: those of images that lie in a dataset of their project.

What a chunk is says `app.feature_files`. Several datasets may share an image, hence a row. Where only some rows are of
nobody any more, the others are written to a new chunk, and the old one goes.
"""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from app import failpoints, feature_files
from app.db.models import Dataset
from app.db.session import Database
from app.errors import NotFound
from app.feature_files import DIGEST, KEYS, ROWS
from app.inbox import Inbox
from app.services import datasets
from app.states import DatasetState
from app.storage import Storage

_BATCH = 65_536

Digests = NDArray[np.uint64]
Bools = NDArray[np.bool_]


class LiveImages:
    """The images of a project's datasets, by the first 64 bits of their digests: 8 bytes each.

    Two images that share them keep each other's features alive, which harms nobody.
    """

    def __init__(self, database: Database, storage: Storage, project: str) -> None:
        with database.read() as session:
            query = select(Dataset.id).where(Dataset.project_id == project, Dataset.state == DatasetState.READY)
            names = session.scalars(query).all()
        found = [np.empty(0, np.uint64), *(_digests(database, storage, project, name) for name in names)]
        self._known = np.unique(np.concatenate(found))

    def are(self, keys_N: NDArray[np.bytes_]) -> Bools:
        """Which of some images there are."""
        return np.isin(_short(keys_N), self._known)


def read_keys(inbox: Inbox, key: str) -> NDArray[np.bytes_]:
    """A chunk's digests, not kept in the local cache.

    Raises:
        NotFound: somebody has removed it meanwhile.
        ValueError: it is damaged.
    """
    return np.frombuffer(b"".join(inbox.read(key)), dtype=DIGEST)


def rewrite(storage: Storage, inbox: Inbox, scratch: Path, stem: str, keys_N: NDArray[np.bytes_], kept_N: Bools) -> int:
    """Writes a chunk's living rows to a new one beside it; the old one is the caller's to remove.

    Returns:
        bytes of the new one.

    Raises:
        NotFound: there are no rows of that name.
        ValueError: they are damaged.
        OSError, OutOfSpace: the disk, or storage, is full.
    """
    new = f"{stem.rpartition('/')[0]}/{feature_files.name(keys_N[kept_N])}"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rows-", dir=scratch) as folder:
        whole, rows, keys = (Path(folder) / name for name in ("whole.npy", "rows.npy", "keys"))
        with whole.open("wb") as file:
            file.writelines(inbox.read(stem + ROWS))
        feature_files.write_rows(rows, feature_files.open_rows(whole, len(keys_N))[kept_N])
        keys.write_bytes(feature_files.packed(keys_N[kept_N]))
        storage.put(new + ROWS, rows)
        failpoints.reach("rows_half")
        storage.put(new + KEYS, keys)
        failpoints.reach("rows_rewritten")
        return rows.stat().st_size + keys.stat().st_size


def _digests(database: Database, storage: Storage, project: str, dataset_id: str) -> Digests:
    import pyarrow.parquet as pq

    try:
        path = storage.fetch(f"{datasets.prefix(project, dataset_id)}/index.parquet")
    except NotFound:
        with database.read() as session:
            if session.get(Dataset, dataset_id) is not None:
                raise
        # It was deleted since its name was read.
        return np.empty(0, np.uint64)
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=_BATCH, columns=["sha256"])
        parts = [_short(np.array(batch["sha256"].to_pylist(), dtype=DIGEST)) for batch in batches]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _short(keys_N: NDArray[np.bytes_]) -> Digests:
    """The first 16 hexadecimal digits of each as a number; by their characters, since numpy reads no hexadecimal."""
    digits_NK = np.frombuffer(feature_files.packed(keys_N), np.uint8).reshape(len(keys_N), -1)[:, :16]
    values_NK = np.where(digits_NK >= ord("a"), digits_NK - (ord("a") - 10), digits_NK - ord("0")).astype(np.uint64)
    weights_K = np.uint64(1) << np.arange(60, -4, -4, dtype=np.uint64)
    return np.asarray((values_NK * weights_K).sum(1, dtype=np.uint64))
