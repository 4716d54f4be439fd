"""Two-sample tests: against loops and SciPy, level under no difference, power under one."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import chi2_contingency

from worker.advice import label_shift, two_samples
from worker.alignments import distance


def normal(num, width, seed, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(size=(num, width)) * scale + shift


def test_the_kernel_statistic_is_that_of_distance():
    first, second = normal(30, 5, 0), normal(20, 5, 1, 0.5)
    both = np.concatenate([first, second])
    null = two_samples.divisions(30, 20, 50, np.random.default_rng(0))
    found = two_samples.mmd(both, 30, null, 0)
    width = distance.bandwidth(first, second, 0)
    assert found.value == pytest.approx(distance.mmd(first, second, width, 0), rel=1e-9)
    # Under a division it is the same function of the divided items.
    again = [
        distance.mmd(both[one], both[~one], width, 0)
        for one in null
    ]  # fmt: skip
    assert found.null_mean == pytest.approx(np.mean(again), rel=1e-6, abs=1e-9)
    assert found.p == (1 + sum(value >= found.value for value in again)) / 51


def test_covariance_statistics_are_scipys():
    first, second = normal(40, 4, 0), normal(50, 4, 1, 0.3, 1.5)
    both, null = np.concatenate([first, second]), two_samples.divisions(40, 50, 5, np.random.default_rng(0))
    covariances = np.cov(first.T, bias=True), np.cov(second.T, bias=True)
    apart = first.mean(0) - second.mean(0)
    wanted = apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert two_samples.frechet(both, 40, null).value == pytest.approx(wanted)
    assert two_samples.coral(both, 40, null).value == pytest.approx(distance.coral(first, second))


def test_the_classifier_is_proxy_a():
    first, second = normal(60, 5, 0), normal(50, 5, 1, 0.8)
    found, error = two_samples.classifier(first, second, 99, 0)
    wanted = distance.proxy_a(first[::2], second[::2], first[1::2], second[1::2], 0)
    assert (found.value, error) == pytest.approx(wanted)
    assert found.p == pytest.approx(0.01)


def test_components_keep_what_is_large():
    first, second = normal(30, 80, 0), normal(30, 80, 1)
    both, parts = two_samples.prepare(first, second)
    assert parts.shape == (60, 6)
    values = np.linalg.eigvalsh(both.T @ both)[::-1]
    np.testing.assert_allclose(np.square(parts).sum(0), values[:6], rtol=1e-6)
    wide, tall = two_samples.prepare(first[:, :5], second[:, :5])
    np.testing.assert_allclose(np.square(tall).sum(0), np.linalg.eigvalsh(wide.T @ wide)[::-1], rtol=1e-6)


@pytest.mark.parametrize("statistic", ["mmd", "coral", "frechet", "proxy_a"])
def test_nothing_is_found_where_nothing_differs(statistic):
    """Level: of 40 pairs from one distribution about 2 are below 0.05; more than 7 would be one chance in 1,000."""
    below = 0
    for seed in range(40):
        first, second = normal(40, 6, 2 * seed), normal(30, 6, 2 * seed + 1)
        if statistic == "proxy_a":
            below += two_samples.classifier(first, second, 99, seed)[0].p <= 0.05
            continue
        both, parts = two_samples.prepare(first, second)
        null = two_samples.divisions(40, 30, 99, np.random.default_rng(seed))
        test = getattr(two_samples, statistic)
        below += (test(both, 40, null, seed) if statistic == "mmd" else test(parts, 40, null)).p <= 0.05
    assert below <= 7


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (0.0, 2.0)])
def test_a_difference_is_found(shift, scale):
    first, second = normal(60, 6, 0), normal(60, 6, 1, shift, scale)
    both, parts = two_samples.prepare(first, second)
    null = two_samples.divisions(60, 60, 199, np.random.default_rng(0))
    assert two_samples.mmd(both, 60, null, 0).p <= 0.01
    assert two_samples.frechet(parts, 60, null).p <= 0.01
    if scale > 1:
        assert two_samples.coral(parts, 60, null).p <= 0.01


def test_means_that_moved():
    parts = np.concatenate([normal(20, 5, 0), normal(25, 5, 1, 1.0)])
    null = two_samples.divisions(20, 25, 199, np.random.default_rng(0))
    moved, deviations = two_samples.means(parts, 20, null)
    assert moved.p == pytest.approx(1 / 200)
    assert deviations > 5
    first, second = parts[:20], parts[20:]
    apart = first.mean(0) - second.mean(0)
    noise = sum(np.trace(np.cov(one.T)) / len(one) for one in (first, second))
    assert moved.value == pytest.approx(apart @ apart - noise)


def test_holm_step_by_step():
    assert two_samples.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert two_samples.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_chi_square_is_scipys():
    counts = np.array([[30, 50, 20], [60, 40, 25]])
    found = label_shift.homogeneity(counts[0], counts[1], ("a", "b", "c"))
    wanted = chi2_contingency(counts, correction=False)
    assert (found.statistic, found.p, found.degrees) == pytest.approx((wanted.statistic, wanted.pvalue, wanted.dof))
    assert found.pooled == ()


def test_rare_classes_are_counted_together():
    found = label_shift.homogeneity(np.array([50, 50, 3, 4, 0]), np.array([50, 40, 2, 5, 0]), tuple("abcde"))
    wanted = chi2_contingency(np.array([[50, 50, 7], [50, 40, 7]]), correction=False)
    assert found.pooled == ("c", "d")
    assert found.statistic == pytest.approx(wanted.statistic)


@pytest.mark.parametrize("counts", [([3, 3], [3, 3]), ([0, 0], [9, 9]), ([50, 0], [50, 0])])
def test_too_rare_to_compare(counts):
    assert label_shift.homogeneity(*map(np.array, counts), ("a", "b")) is None
