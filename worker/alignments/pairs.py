"""Which samples of two datasets are the same item.

Shape legend: N, M samples of the datasets, P pairs.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from worker.data.samples import Index

Rows = NDArray[np.int64]


def match(source: Index, target: Index, source_rows: Rows, target_rows: Rows, by: str) -> tuple[Rows, Rows]:
    """Rows of both datasets, pair by pair in the order of the source; a key that is not unique pairs nothing.

    Args:
        source: of the head's domain.
        target: of the new one.
        source_rows: which samples may be used.
        target_rows: the same of the target.
        by: path, name or sha256.

    Shape:
        source_rows: [N]; target_rows: [M]; returns [P], [P]
    """
    own, other = _unique(keys(source, by), source_rows), _unique(keys(target, by), target_rows)
    shared = [key for key in own if key in other]
    return np.array([own[key] for key in shared], np.int64), np.array([other[key] for key in shared], np.int64)


def keys(index: Index, by: str) -> list[str]:
    """What each sample of a dataset is known by.

    A path is taken without the folder that all of the dataset's paths lie in: uploads of one tree may be wrapped
    differently.
    """
    if by == "sha256":
        return [digest.decode() for digest in index.sha256]
    paths = [PurePosixPath(path) for path in index.paths.to_pylist()]
    if by == "name":
        return [path.stem for path in paths]
    depth = _common([path.parts[:-1] for path in paths])
    return ["/".join(path.parts[depth:]) for path in paths]


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """How many leading folders all have in common."""
    depth = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        depth += 1
    return depth


def _unique(named: list[str], rows: Rows) -> dict[str, int]:
    """Key -> row for the allowed rows whose key no other sample of the dataset has."""
    counts = Counter(named)
    return {named[row]: int(row) for row in rows if counts[named[row]] == 1}
