import numpy as np
import pytest

from worker.scores.risk_coverage import risk_coverage


def slow_aurc(confidence, correct):
    """The mean, over all orders in which equally sure items may stand, of the risk at every coverage."""
    rng, runs = np.random.default_rng(0), []
    for _ in range(4000):
        order = sorted(range(len(correct)), key=lambda item: (-confidence[item], rng.random()))
        wrong, total = 0, 0.0
        for place, item in enumerate(order, 1):
            wrong += not correct[item]
            total += wrong / place
        runs.append(total / len(order))
    return float(np.mean(runs))


def test_area_equals_a_loop() -> None:
    rng = np.random.default_rng(1)
    confidence, correct = rng.random(25), rng.random(25) < 0.7
    order, wrong, risks = np.argsort(-confidence), 0, []
    for place, item in enumerate(order, 1):
        wrong += int(not correct[item])
        risks.append(wrong / place)
    found = risk_coverage(confidence, correct)
    assert found.aurc == pytest.approx(np.mean(risks), abs=1e-12)
    assert [point["risk"] for point in found.points][-1] == pytest.approx(1 - correct.mean())
    assert found.points[4]["risk"] == pytest.approx(risks[round(0.5 * 25) - 1])


def test_equally_sure_items_count_as_their_mean() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.5, 0.5, 0.4])
    correct = np.array([True, False, True, False, True, True])
    assert risk_coverage(confidence, correct).aurc == pytest.approx(slow_aurc(confidence, correct), abs=5e-3)
    backwards = risk_coverage(confidence[::-1], correct[::-1])
    assert backwards.aurc == pytest.approx(risk_coverage(confidence, correct).aurc, abs=1e-12)


def test_a_perfect_order_has_no_excess_and_a_reversed_one_the_most() -> None:
    correct = np.array([True] * 6 + [False] * 4)
    perfect = risk_coverage(np.linspace(1, 0, 10), correct)
    reverse = risk_coverage(np.linspace(0, 1, 10), correct)
    assert perfect.excess == 0.0
    assert reverse.excess > risk_coverage(np.full(10, 0.5), correct).excess > 0
    assert risk_coverage(np.full(4, 0.5), np.ones(4, bool)).aurc == 0.0


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        risk_coverage(np.empty(0), np.empty(0, bool))
