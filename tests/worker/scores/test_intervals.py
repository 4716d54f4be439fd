from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import betainc, betaincinv
from scipy.stats import binomtest
from sklearn import metrics as sk

from worker.scores import beta, intervals

# Class sizes of test splits, from one item each to many.
SHAPES = {
    "100 classes, 103 items": [1] * 97 + [2] * 3,
    "25 classes, 65 items": [2] * 10 + [3] * 15,
    "20 classes, 100 items": [5] * 20,
    "10 classes, 200 items": [20] * 10,
    "9 classes, 9 items": [1] * 9,
    "large and rare": [100] * 9 + [1],
}
RUNS = 150
# Two standard errors of a share of RUNS under 0.93, and above 0.06.
LEAST, MOST = 0.93 - 0.042, 0.06 + 0.039


def predictions(num_items: int, seed: int = 0, accuracy: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(4, size=num_items, p=[0.4, 0.3, 0.2, 0.1])
    wrong_N = rng.random(num_items) > accuracy
    return labels_N, np.where(wrong_N, rng.integers(0, 4, num_items), labels_N)


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("recalls", [(0.6, 0.6), (0.5, 1.0)], ids=["even", "rare are worse or better"])
def test_intervals_hold_the_truth_as_often_as_they_say(sizes: Sequence[int], recalls: tuple[float, float]) -> None:
    size_C, num_classes, rng = np.array(sizes), len(sizes), np.random.default_rng(1)
    recall_C = np.linspace(*recalls, num_classes)
    labels_N = np.repeat(np.arange(num_classes), size_C)
    called_C = size_C * recall_C + ((size_C * (1 - recall_C)).sum() - size_C * (1 - recall_C)) / (num_classes - 1)
    truth = {
        "accuracy": (size_C * recall_C).sum() / size_C.sum(),
        "macro_recall": recall_C.mean(),
        "macro_f1": (2 * size_C * recall_C / (size_C + called_C)).mean(),
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(RUNS):
        right_N = rng.random(len(labels_N)) < recall_C[labels_N]
        other_N = (labels_N + rng.integers(1, num_classes, len(labels_N))) % num_classes
        found = intervals.of_scores(labels_N, np.where(right_N, labels_N, other_N), num_classes)
        for name in truth.keys() & found.keys():
            held[name] += found[name].low <= truth[name] <= found[name].high
    told = truth.keys() - intervals.missing(labels_N).keys()
    assert {"accuracy", "macro_recall"} <= told
    for name in told:
        assert held[name] / RUNS >= LEAST, name


@pytest.mark.parametrize("number", [9, 60, 103])
@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.9, 0.6), (0.97, 0.95)])
def test_paired_intervals_hold_the_truth_and_find_no_difference_where_there_is_none(
    number: int, a: float, b: float
) -> None:
    rng, held, found_any = np.random.default_rng(2), 0, 0
    for _ in range(RUNS):
        found = intervals.paired_difference(rng.random(number) < a, rng.random(number) < b)
        held += found.low <= a - b <= found.high
        found_any += found.low > 0 or found.high < 0
    assert held / RUNS >= LEAST
    if a == b:
        assert found_any / RUNS <= MOST


def test_values_are_those_of_scikit_learn_and_lie_in_their_intervals() -> None:
    labels_N, predicted_N = predictions(200)
    found = intervals.of_scores(labels_N, predicted_N, 6)
    assert found["accuracy"].value == pytest.approx((labels_N == predicted_N).mean())
    assert found["macro_f1"].value == pytest.approx(sk.f1_score(labels_N, predicted_N, average="macro"))
    assert found["macro_recall"].value == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))
    assert found["macro_recall"] == found["balanced_accuracy"]
    for bound in found.values():
        assert bound.low < bound.value < bound.high


@pytest.mark.parametrize("name", ["accuracy", "macro_recall", "macro_f1"])
def test_on_many_items_of_each_class_they_are_those_of_a_bootstrap(name: str) -> None:
    labels_N, predicted_N = predictions(1000)
    rng, draws = np.random.default_rng(5), []
    scores = {
        "accuracy": sk.accuracy_score,
        "macro_recall": sk.balanced_accuracy_score,
        "macro_f1": lambda true, called: sk.f1_score(true, called, average="macro"),
    }
    for _ in range(150):
        rows = rng.integers(0, 1000, 1000)
        draws.append(scores[name](labels_N[rows], predicted_N[rows]))
    found = intervals.of_scores(labels_N, predicted_N, 4)[name]
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(draws), rel=0.2)


def test_classes_of_one_size_give_balanced_accuracy_the_interval_of_accuracy() -> None:
    labels_N = np.arange(60) % 6
    predicted_N = np.where(np.arange(60) < 13, (labels_N + 1) % 6, labels_N)
    found = intervals.of_scores(labels_N, predicted_N, 6)
    bounds = [(found[name].low, found[name].high) for name in ("accuracy", "balanced_accuracy")]
    assert bounds[0] == pytest.approx(bounds[1])


def test_macro_f1_has_no_interval_on_few_items_of_a_class_and_says_why() -> None:
    labels_N = np.repeat(np.arange(50), 2)
    found = intervals.of_scores(labels_N, labels_N, 50)
    assert found.keys() == {"accuracy", "balanced_accuracy", "macro_recall"}
    flat, reasons = intervals.bounds(found, "test_"), intervals.reasons(labels_N, "metrics.test_")
    assert flat["test_macro_f1_low"] is flat["test_macro_f1_high"] is None
    assert {f"metrics.{name}" for name, value in flat.items() if value is None} == reasons.keys()
    assert "found 2.0" in reasons["metrics.test_macro_f1_low"]
    assert intervals.missing(np.repeat(np.arange(50), 5)) == {}


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("num_items", [1, 5, 200])
def test_all_right_or_all_wrong_has_width(right: bool, num_items: int) -> None:
    labels_N = np.arange(num_items) % 3
    predicted_N = labels_N if right else (labels_N + 1) % 3
    for name, found in intervals.of_scores(labels_N, predicted_N, 3).items():
        assert found.value == (1.0 if right else 0.0)
        assert found.low <= found.value <= found.high
        assert found.high - found.low > 1 / (4 * num_items), name


def test_accuracy_has_the_exact_binomial_interval() -> None:
    labels_N = np.zeros(20, dtype=int)
    for wrong in (0, 3, 20):
        found = intervals.of_scores(labels_N, np.array([0] * (20 - wrong) + [1] * wrong), 2)["accuracy"]
        known = binomtest(20 - wrong, 20).proportion_ci(method="exact")
        assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_the_beta_distribution_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for a, b in np.exp(rng.uniform(-1, 10, (200, 2))):
        x = rng.beta(a, b)
        assert beta.cdf(x, a, b) == pytest.approx(betainc(a, b, x), abs=1e-9)
        assert beta.quantile(0.025, a, b) == pytest.approx(betaincinv(a, b, 0.025), abs=1e-9)
    assert (beta.cdf(0.0, 2, 3), beta.cdf(1.0, 2, 3)) == (0.0, 1.0)


def results(number: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    a_N, b_N = np.ones(number, dtype=bool), np.ones(number, dtype=bool)
    b_N[:only_a] = False
    a_N[only_a : only_a + only_b] = False
    return a_N, b_N


def test_a_paired_interval_ends_where_the_score_test_begins_to_reject() -> None:
    ours, theirs = results(30, 12, 3)
    found, mirror = intervals.paired_difference(ours, theirs), intervals.paired_difference(theirs, ours)
    assert (found.value, found.method) == (pytest.approx(0.3), "tango")
    assert (mirror.low, mirror.high) == pytest.approx((-found.high, -found.low))
    for bound in (found.low, found.high):
        # The restricted maximum of the likelihood, by a grid instead of its closed form.
        share = np.linspace(max(0.0, -bound), (1 - bound) / 2, 2_000_001)[1:-1]
        likelihood = 12 * np.log(share + bound) + 3 * np.log(share) + 15 * np.log1p(-2 * share - bound)
        best = share[np.argmax(likelihood)]
        z = (12 - 3 - 30 * bound) / np.sqrt(30 * (2 * best + bound * (1 - bound)))
        assert abs(z) == pytest.approx(1.96, abs=1e-3)


@pytest.mark.parametrize("number", [9, 100, 1000])
def test_it_holds_nought_exactly_when_the_exact_test_does_not_reject(number: int) -> None:
    for only_a in range(0, min(number, 60), 3):
        for only_b in range(0, min(number - only_a, 60), 3):
            ours, theirs = results(number, only_a, only_b)
            found = intervals.paired_difference(ours, theirs)
            assert found.low <= found.value <= found.high
            assert found.low < found.high
            assert (found.low > 0 or found.high < 0) == (intervals.mcnemar(ours, theirs).p_value < 0.05)


@pytest.mark.parametrize(("only_a", "only_b"), [(12, 3), (5, 5), (0, 1), (20, 40)])
def test_mcnemar_equals_the_binomial_test(only_a: int, only_b: int) -> None:
    found = intervals.mcnemar(*results(80, only_a, only_b))
    assert (found.num_only_a, found.num_only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


def test_models_that_never_differ_have_p_value_one() -> None:
    same_N = np.array([True, False, True])
    assert intervals.mcnemar(same_N, same_N).p_value == 1.0


def test_empty_and_unequal_input_is_refused() -> None:
    none = np.array([], dtype=int)
    with pytest.raises(ValueError, match="at least one"):
        intervals.of_scores(none, none, 2)
    with pytest.raises(ValueError, match="same items"):
        intervals.mcnemar(np.array([True]), np.array([True, False]))
