import json

import numpy as np
import pytest

from worker.overlap import leakage


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
    marks = [np.array(row, dtype=bool) for row in ([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0])]
    found = leakage.leakage(np.array([True, True, True, False]), *marks)
    assert (found.num_exact, found.num_phash, found.num_cosine, found.num_any) == (1, 2, 0, 2)
    assert (found.accuracy_with, found.accuracy_without) == (0.75, 0.5)
    assert (found.num_copies, found.accuracy_without_copies) == (1, pytest.approx(2 / 3))
    assert json.loads(json.dumps(found.document()))["num_test"] == 4


def test_all_items_leaked_has_no_accuracy_without() -> None:
    yes = np.array([True])
    assert leakage.leakage(yes, yes, ~yes, ~yes, ~yes).accuracy_without is None
    with pytest.raises(ValueError, match="per test item"):
        leakage.leakage(yes, yes, yes, yes, np.array([True, False]))
