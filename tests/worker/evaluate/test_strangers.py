import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from worker.evaluate import strangers


def test_auroc_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    familiar, strange = rng.integers(2, 9, 40).astype(float), rng.integers(0, 7, 25).astype(float)
    expected = roc_auc_score(np.repeat([1, 0], [40, 25]), np.concatenate([familiar, strange]))
    assert strangers.auroc(familiar, strange) == pytest.approx(expected, abs=1e-12)
    assert strangers.auroc(np.ones(3), np.ones(4)) == 0.5
    with pytest.raises(ValueError, match="both kinds"):
        strangers.auroc(np.ones(3), np.ones(0))


def test_energy_is_the_log_of_the_sum_of_exponentials() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, 0.0]])
    assert strangers.energy(logits) == pytest.approx([np.log(np.exp(logits[0]).sum()), 1000.0])


@pytest.mark.parametrize("neighbours", [1, 10, 100])
def test_nearness_is_the_cosine_to_the_kth_neighbour(neighbours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_CHUNK_ROWS", 3)
    rng = np.random.default_rng(1)
    asked, learned = rng.normal(size=(8, 5)), rng.normal(size=(30, 5))
    kept = min(neighbours, 30)
    known = NearestNeighbors(n_neighbors=kept, metric="cosine").fit(learned)
    expected = 1 - known.kneighbors(asked)[0][:, -1]
    assert strangers.nearness(asked, learned, neighbours) == pytest.approx(expected, abs=1e-9)
