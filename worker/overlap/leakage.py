"""How many test items have a near-copy among what was learned from, and the accuracy without them. Torch-free.

10 % of CIFAR-100's test images have a near-duplicate in its training set, and accuracy falls without them
(arXiv 1902.00423). A twin is an equal sha256, a pHash at Hamming distance <= 4 or a feature cosine > 0.98. Of these
only equal bytes say something for sure: drawings and digits of one class pass the others. So the kinds are counted
apart, and beside them those that `worker.overlap.copies` is sure of.

Shapes: T test items, N training items, D features.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from worker.overlap.copies import MIN_COSINE

_CHUNK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Leakage:
    """Counts of test items with a twin, by kind, and of sure copies; accuracies are null where no item is left."""

    num_test: int
    num_exact: int
    num_phash: int
    num_cosine: int
    num_any: int
    num_copies: int
    accuracy_with: float
    accuracy_without: float | None
    accuracy_without_copies: float | None

    def document(self) -> dict[str, int | float | None]:
        """The counts as they stand in the report."""
        return asdict(self)


def cosine_twins(test_feats_TD: NDArray[np.floating], train_feats_ND: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Test items with a training item whose features point the same way (cosine above ``MIN_COSINE``).

    Takes raw features, before standardisation, whose centring would change the angles.

    Shape:
        test_feats_TD: [T, D]; train_feats_ND: [N, D]; returns [T].
    """
    twin_T = np.zeros(len(test_feats_TD), dtype=bool)
    test_unit_TD = _unit(test_feats_TD)
    train_rows = max(1, _CHUNK_ELEMENTS // max(1, train_feats_ND.shape[1]))
    for start in range(0, len(train_feats_ND), train_rows):
        train_unit_MD = _unit(train_feats_ND[start : start + train_rows])
        for rows in _chunks(len(test_feats_TD), len(train_unit_MD)):
            twin_T[rows] |= (test_unit_TD[rows] @ train_unit_MD.T > MIN_COSINE).any(axis=1)
    return twin_T


def leakage(
    correct_T: NDArray[np.bool_],
    exact_T: NDArray[np.bool_],
    phash_T: NDArray[np.bool_],
    cosine_T: NDArray[np.bool_],
    copy_T: NDArray[np.bool_],
) -> Leakage:
    """Count the twins and score the test set with and without every item that has one, or surely is a copy.

    Shape:
        all [T].

    Raises:
        ValueError: when there is no test item or the shapes differ.
    """
    if correct_T.size == 0 or not len({one.shape for one in (correct_T, exact_T, phash_T, cosine_T, copy_T)}) == 1:
        raise ValueError(
            f"Expected one result and four marks per test item, found shapes {correct_T.shape}, "
            f"{exact_T.shape}, {phash_T.shape}, {cosine_T.shape}, {copy_T.shape}."
        )
    any_T = exact_T | phash_T | cosine_T | copy_T
    return Leakage(
        num_test=int(correct_T.size),
        num_exact=int(exact_T.sum()),
        num_phash=int(phash_T.sum()),
        num_cosine=int(cosine_T.sum()),
        num_any=int(any_T.sum()),
        num_copies=int(copy_T.sum()),
        accuracy_with=float(correct_T.mean()),
        accuracy_without=float(correct_T[~any_T].mean()) if not any_T.all() else None,
        accuracy_without_copies=float(correct_T[~copy_T].mean()) if not copy_T.all() else None,
    )


def _chunks(num_rows: int, num_columns: int) -> list[slice]:
    size = max(1, _CHUNK_ELEMENTS // max(1, num_columns))
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _unit(feats_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1; a zero row stays zero and so has no twin."""
    work_ND = feats_ND.astype(np.float32)
    length_N = np.linalg.norm(work_ND, axis=1, keepdims=True)
    unit_ND: NDArray[np.float32] = np.divide(work_ND, length_N, out=np.zeros_like(work_ND), where=length_N > 0)
    return unit_ND
