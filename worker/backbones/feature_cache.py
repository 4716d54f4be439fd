"""Features in storage, found by what they are features of. No table knows of them (decision 0006).

Every extracted chunk is an immutable pair of objects (`app.feature_files`). A collection removes rows of images that
are nobody's any more (`app.services.feature_chunks`).

Shape legend: N images, D features.
"""

import hashlib
import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app import failpoints, feature_files
from app.errors import NotFound
from app.feature_files import DIGEST, KEYS, ROWS
from app.storage import Storage

Features = NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Space:
    """What features are features of, besides the image: everything that can change a number."""

    backbone: str
    preprocess: str
    layer: str
    view: str
    precision: str

    @property
    def digest(self) -> str:
        """Names the space in storage."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:40]


class FeatureCache:
    """Feature sets of one project in one space.

    Args:
        storage: where chunks lie.
        project: owner.
        space: of the features.
        scratch: folder for files on their way.
    """

    def __init__(self, storage: Storage, project: str, space: Space, scratch: Path) -> None:
        self._storage, self._scratch = storage, scratch
        self._prefix = f"features/{project}/{space.digest}"

    def load(
        self, keys_N: NDArray[np.bytes_]
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.int64], NDArray[np.int64]]:
        """Where each of the wanted images is.

        Shape:
            keys_N: [N] S64, hex digests of image bytes

        Returns:
            the chunks' arrays (memory-mapped), and per image its chunk (-1: missing) and row.
        """
        chunk_N = np.full(len(keys_N), -1, np.int64)
        row_N = np.zeros(len(keys_N), np.int64)
        arrays: list[NDArray[np.float32]] = []
        for name in self._storage.list(self._prefix):
            if not name.endswith(KEYS):
                continue
            if (chunk_N >= 0).all():
                break
            try:
                stored = np.frombuffer(self._storage.fetch(name).read_bytes(), dtype=DIGEST)
                order = np.argsort(stored)
                place = np.searchsorted(stored, keys_N, sorter=order).clip(max=len(stored) - 1)
                found = (stored[order[place]] == keys_N) & (chunk_N < 0)
                if found.any():
                    path = self._storage.fetch(name.removesuffix(KEYS) + ROWS)
                    array = feature_files.open_rows(path, len(stored))
                    chunk_N[found], row_N[found] = len(arrays), order[place[found]]
                    arrays.append(array)
            except (NotFound, FileNotFoundError):
                # A collection has removed or rewritten it since it was listed: what was in it is missing.
                continue
            except (ValueError, IndexError) as error:
                # Of a machine that lost its power, say: what was in it is missing as well, and made again.
                log.warning("%s is damaged: %s", name, error)
        return arrays, chunk_N, row_N

    def add(self, keys_N: NDArray[np.bytes_], features_ND: Features) -> None:
        """Stores one chunk."""
        name = f"{self._prefix}/{feature_files.name(keys_N)}"
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            features, keys = Path(folder) / "features.npy", Path(folder) / "keys"
            feature_files.write_rows(features, features_ND)
            keys.write_bytes(feature_files.packed(keys_N))
            self._storage.put(name + ROWS, features)
            failpoints.reach("features_half")
            self._storage.put(name + KEYS, keys)
            failpoints.reach("features_stored")
