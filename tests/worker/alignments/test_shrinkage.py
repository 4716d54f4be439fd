"""The choice of shrinkage against the maps themselves, fitted one by one."""

import numpy as np
import pytest

from worker.alignments import distance, shrinkage, unpaired


@pytest.fixture
def domains():
    """Fewer items than features, as pictures come: full covariances of these are mostly noise."""
    rng = np.random.default_rng(8)
    mix = rng.normal(size=(60, 60)) * np.linspace(0.1, 2, 60)
    fixed = rng.normal(size=(90, 60)) @ mix
    moving = rng.normal(size=(80, 60)) @ mix * rng.uniform(0.7, 1.3, 60) + 1.0
    return moving[:40], fixed[:45], moving[40:], fixed[45:]


@pytest.mark.parametrize(("correlations", "fit"), [(False, unpaired.coral), (True, unpaired.whitening)])
def test_the_closest_of_all_shares_is_chosen(domains, correlations, fit):
    moving, fixed, held_moving, held_fixed = domains
    share, apart = shrinkage.choose(*domains, seed=0, correlations=correlations)
    width = distance.bandwidth(held_moving, held_fixed, 0)
    slow = [
        distance.mmd(fit(moving, fixed, one, one).apply(held_moving), held_fixed, width, 0) for one in shrinkage.SHARES
    ]
    np.testing.assert_allclose(apart, slow, rtol=1e-5, atol=1e-7)
    assert share == shrinkage.SHARES[int(np.argmin(slow))]
    assert share > shrinkage.SHARES[0]


def test_domains_without_variance_are_chosen_for_as_well():
    rows = np.ones((6, 3))
    share, apart = shrinkage.choose(rows, rows, rows, rows, 0)
    assert share in shrinkage.SHARES
    assert np.isfinite(apart).all()
