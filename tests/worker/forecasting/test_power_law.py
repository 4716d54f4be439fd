"""Learning curves as power laws, on curves that are known."""

import numpy as np
import pytest

from worker.forecasting import power_law
from worker.forecasting.power_law import Seen, weigh

SIZES = np.array([100.0, 250.0, 500.0, 1000.0])


def seen(a, b, c, *, noise=0.006, seed=0, num_scored=2000):
    errors_S = a * SIZES**-b + c
    errors_S = errors_S + noise * np.random.default_rng(seed).standard_normal(4)
    return Seen(SIZES, errors_S, np.full(4, noise**2), num_scored)


@pytest.mark.parametrize(("a", "b", "c"), [(3.0, 0.6, 0.1), (1.0, 0.3, 0.05), (20.0, 1.0, 0.2)])
def test_four_times_the_images_are_foretold_within_the_interval(a, b, c):
    inside = 0
    for seed in range(40):
        data = seen(a, b, c, seed=seed)
        curves = weigh(data).draw(4000, np.random.default_rng(seed))
        gain = curves.error(1000) - curves.error(4000)
        low, high = np.quantile(gain, [0.025, 0.975])
        inside += low <= a * (1000.0**-b - 4000.0**-b) <= high
    assert inside >= 35


def test_the_document_is_the_curve_that_was_drawn():
    found = weigh(seen(3.0, 0.6, 0.1, noise=0.003, num_scored=10**5)).document()
    assert found["b_low"] <= found["b"] <= found["b_high"]
    for size in (100, 300, 1000):
        assert found["a"] * size ** -found["b"] + found["c"] == pytest.approx(3 * size**-0.6 + 0.1, abs=0.01)


def test_weights_are_those_of_a_loop():
    data = seen(2.0, 0.4, 0.1, num_scored=50)
    law = weigh(data)
    wrong, right = 50 * data.errors_S[-1] - 0.5, 50 * (1 - data.errors_S[-1]) - 0.5
    chosen = np.argsort(law.weight_K)[-2000::40]
    scores = []
    for place in chosen:
        level, share, exponent = law.level_K[place], law.share_K[place], law.exponent_K[place]
        score = wrong * np.log(level) + right * np.log(1 - level) - 0.5 * np.log(share * (1 - share))
        for size, error in zip(SIZES[:-1], data.errors_S[:-1], strict=True):
            curve = level * (1 - share + share * (size / 1000) ** -exponent)
            score -= (error - data.errors_S[-1] - (curve - level)) ** 2 / (2 * 2 * 0.006**2)
        scores.append(score)
    shift = np.log(law.weight_K[chosen]) - np.array(scores)
    np.testing.assert_allclose(shift, shift[0], atol=1e-6)
    assert law.weight_K.sum() == pytest.approx(1)


def test_level_alone_is_the_binomial_posterior_of_the_last_point():
    special = pytest.importorskip("scipy.stats")
    law = weigh(Seen(np.array([80.0]), np.array([0.25]), np.array([1e-4]), 80))
    curves = law.draw(20_000, np.random.default_rng(0))
    wanted = special.beta(20.5, 60.5)
    np.testing.assert_allclose(
        np.quantile(curves.error(80), [0.025, 0.5, 0.975]), wanted.ppf([0.025, 0.5, 0.975]), atol=0.01
    )


def test_without_an_error_none_is_certain():
    law = weigh(Seen(np.array([50.0]), np.array([0.0]), np.array([1e-4]), 50))
    high = np.quantile(law.draw(10_000, np.random.default_rng(0)).error(50), 0.975)
    assert 0.01 < high < 0.1


def test_what_is_no_curve_is_not_told():
    assert power_law.untold(seen(2.0, 0.5, 0.0)) is None
    flat = Seen(SIZES, np.array([0.2, 0.21, 0.19, 0.2]), np.full(4, 0.01**2), 500)
    assert "chance alone" in power_law.untold(flat)
    two = Seen(SIZES[:2], np.array([0.4, 0.2]), np.full(2, 1e-4), 500)
    assert "found 2" in power_law.untold(two)
    with pytest.raises(ValueError, match="at least one positive size"):
        weigh(Seen(np.array([]), np.array([]), np.array([]), 5))
