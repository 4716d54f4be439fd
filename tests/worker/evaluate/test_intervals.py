import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from worker.evaluate import intervals


def predictions(num_items: int, seed: int = 0, accuracy: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(4, size=num_items, p=[0.4, 0.3, 0.2, 0.1])
    wrong_N = rng.random(num_items) > accuracy
    return labels_N, np.where(wrong_N, rng.integers(0, 4, num_items), labels_N)


def slow_bootstrap(labels_N: np.ndarray, predicted_N: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    draws: dict[str, list[float]] = {"accuracy": [], "balanced_accuracy": [], "macro_recall": [], "macro_f1": []}
    for _ in range(rounds):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(labels_N == c), size=(labels_N == c).sum()) for c in np.unique(labels_N)]
        )
        true, called = labels_N[rows], predicted_N[rows]
        draws["accuracy"].append((true == called).mean())
        draws["balanced_accuracy"].append(sk.balanced_accuracy_score(true, called))
        draws["macro_recall"].append(sk.recall_score(true, called, average="macro", zero_division=0))
        draws["macro_f1"].append(sk.f1_score(true, called, average="macro", zero_division=0))
    return {name: np.quantile(values, [0.025, 0.975]) for name, values in draws.items()}


def test_bootstrap_agrees_with_resampling_items_in_a_loop() -> None:
    labels_N, predicted_N = predictions(200)
    found = intervals.bootstrap(labels_N, predicted_N, 4, seed=0, num_resamples=20_000)
    slow = slow_bootstrap(labels_N, predicted_N, rounds=600)
    assert found["accuracy"].value == pytest.approx((labels_N == predicted_N).mean())
    assert found["macro_f1"].value == pytest.approx(sk.f1_score(labels_N, predicted_N, average="macro"))
    for name, bounds in slow.items():
        assert found[name].method == "bootstrap"
        assert [found[name].low, found[name].high] == pytest.approx(list(bounds), abs=0.012), name


def test_bootstrap_is_seeded_and_ignores_classes_without_items() -> None:
    labels_N, predicted_N = predictions(100)
    first = intervals.bootstrap(labels_N, predicted_N, 6, seed=3)
    assert first == intervals.bootstrap(labels_N, predicted_N, 6, seed=3)
    assert first != intervals.bootstrap(labels_N, predicted_N, 6, seed=4)
    assert first["macro_recall"].value == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))


def test_blocks_of_resamples_do_not_change_what_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    labels_N, predicted_N = predictions(500)
    whole = intervals.bootstrap(labels_N, predicted_N, 4, seed=0)
    monkeypatch.setattr(intervals, "_MAX_ELEMENTS", 4 * 300)
    blocks = intervals.bootstrap(labels_N, predicted_N, 4, seed=0)
    for name in intervals.METRICS:
        assert [whole[name].low, whole[name].high] == pytest.approx([blocks[name].low, blocks[name].high], abs=0.01)


def test_coverage_is_near_95_percent() -> None:
    truth, hits = 0.7 + 0.3 / 4, 0
    for seed in range(200):
        labels_N, predicted_N = predictions(150, seed)
        found = intervals.bootstrap(labels_N, predicted_N, 4, seed=0, num_resamples=400)["accuracy"]
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 200 <= 0.99


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("num_items", [1, 5, 200])
def test_all_right_or_all_wrong_has_width(right: bool, num_items: int) -> None:
    labels_N = np.arange(num_items) % 3
    predicted_N = labels_N if right else (labels_N + 1) % 3
    for name, found in intervals.bootstrap(labels_N, predicted_N, 3, seed=0).items():
        assert found.value == (1.0 if right else 0.0)
        assert found.low <= found.value <= found.high
        assert found.high - found.low > 1 / (4 * num_items), name
        assert found.method == ("clopper_pearson" if name == "accuracy" else "jeffreys")


def test_fallback_of_accuracy_is_the_exact_binomial_interval() -> None:
    labels_N = np.zeros(20, dtype=int)
    found = intervals.bootstrap(labels_N, np.array([0] * 17 + [1] * 3), 2, seed=0)["accuracy"]
    known = binomtest(17, 20).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_paired_difference_agrees_with_resampling_pairs_in_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 3, 300)
    a_N, b_N = rng.random(300) < 0.85, rng.random(300) < 0.75
    found = intervals.paired_difference(a_N, b_N, labels_N, seed=0, num_resamples=20_000)
    difference_N, draws = a_N.astype(float) - b_N, []
    for _ in range(2000):
        parts = [rng.choice(np.flatnonzero(labels_N == c), size=(labels_N == c).sum()) for c in range(3)]
        draws.append(difference_N[np.concatenate(parts)].mean())
    assert found.method == "bootstrap"
    assert found.value == pytest.approx(difference_N.mean())
    assert [found.low, found.high] == pytest.approx(list(np.quantile(draws, [0.025, 0.975])), abs=0.006)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (6, 0), (0, 6), (7, 1), (8, 1), (3, 4)])
def test_few_differences_use_the_exact_interval_that_agrees_with_mcnemar(only_a: int, only_b: int) -> None:
    a_N, b_N = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
    b_N[:only_a] = False
    a_N[only_a : only_a + only_b] = False
    found = intervals.paired_difference(a_N, b_N, np.arange(100) % 2, seed=0)
    test = intervals.mcnemar(a_N, b_N)
    assert found.method == "exact_paired"
    assert found.low <= found.value <= found.high
    assert found.low < found.high
    assert (found.low > 0 or found.high < 0) == (test.p_value < 0.05)


@pytest.mark.parametrize(("only_a", "only_b"), [(12, 3), (5, 5), (0, 1), (20, 40)])
def test_mcnemar_equals_the_binomial_test(only_a: int, only_b: int) -> None:
    a_N, b_N = np.ones(80, dtype=bool), np.ones(80, dtype=bool)
    b_N[:only_a] = False
    a_N[only_a : only_a + only_b] = False
    found = intervals.mcnemar(a_N, b_N)
    assert (found.num_only_a, found.num_only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_models_that_never_differ_have_p_value_one() -> None:
    same_N = np.array([True, False, True])
    assert intervals.mcnemar(same_N, same_N).p_value == 1.0


def test_empty_and_unequal_input_is_refused() -> None:
    none = np.array([], dtype=int)
    with pytest.raises(ValueError, match="at least one"):
        intervals.bootstrap(none, none, 2, seed=0)
    with pytest.raises(ValueError, match="same items"):
        intervals.mcnemar(np.array([True]), np.array([True, False]))
