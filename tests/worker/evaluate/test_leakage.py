import json

import numpy as np
import pytest

from worker.evaluate import leakage


def test_exact_twins() -> None:
    assert leakage.exact_twins(["a", "b", "c"], ["c", "x", "a"]).tolist() == [True, False, True]


@pytest.mark.parametrize("chunk", [2**24, 7])
def test_phash_twins_equal_a_loop(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "_CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(0)
    train_N = rng.integers(0, 2**63, size=30).astype(np.uint64)
    test_T = rng.integers(0, 2**63, size=20).astype(np.uint64)
    for item, bits in enumerate([0, 1, 3, 4, 5, 6]):
        flips = sum(1 << int(bit) for bit in rng.choice(64, size=bits, replace=False))
        test_T[item] = int(train_N[item]) ^ flips
    slow = [any((int(a) ^ int(b)).bit_count() <= 4 for b in train_N) for a in test_T]
    assert leakage.phash_twins(test_T, train_N).tolist() == slow
    assert slow[:6] == [True, True, True, True, False, False]


@pytest.mark.parametrize("chunk", [2**24, 25])
def test_cosine_twins_equal_a_loop(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "_CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(0)
    train_ND = np.maximum(rng.normal(size=(15, 8)), 0)
    test_TD = np.maximum(rng.normal(size=(10, 8)), 0)
    test_TD[0], test_TD[1], test_TD[2] = 3 * train_ND[4], train_ND[7] + 0.02, 0.0
    slow = [
        any(a @ b > 0.98 * np.linalg.norm(a) * np.linalg.norm(b) for b in train_ND) and bool(a.any()) for a in test_TD
    ]
    assert leakage.cosine_twins(test_TD, train_ND).tolist() == slow
    assert slow[:3] == [True, True, False]


def test_accuracy_with_and_without_twins() -> None:
    marks = [np.array(row, dtype=bool) for row in ([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0])]
    found = leakage.leakage(np.array([True, True, True, False]), *marks)
    assert (found.num_exact, found.num_phash, found.num_cosine, found.num_any) == (1, 2, 0, 2)
    assert (found.accuracy_with, found.accuracy_without) == (0.75, 0.5)
    assert json.loads(json.dumps(found.document()))["num_test"] == 4


def test_all_items_leaked_has_no_accuracy_without() -> None:
    yes = np.array([True])
    assert leakage.leakage(yes, yes, ~yes, ~yes).accuracy_without is None
    with pytest.raises(ValueError, match="per test item"):
        leakage.leakage(yes, yes, yes, np.array([True, False]))
