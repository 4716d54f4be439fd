import numpy as np
import pytest

from worker.domains import distances


def blobs(shift, seed=0, num=80, width=6):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(num, width)), generator.normal(size=(num // 2, width)) * 1.5 + shift


def test_equal_domains_are_close_and_far_ones_are_far():
    generator = np.random.default_rng(1)
    one, other, far = (generator.normal(size=(200, 6)) + shift for shift in (0, 0, 8))
    near, away = distances.distances(one, other, 0), distances.distances(one, far, 0)
    assert near.proxy_a < 0.4
    assert away.proxy_a == pytest.approx(2.0)
    assert near.mmd < 0.02
    assert away.mmd > 0.5
    assert near.space.startswith("all dimensions of the features")


def test_units_of_a_feature_do_not_matter():
    source, target = blobs(0.5)
    factors = np.array([1e-3, 1.0, 10.0, 3.0, 500.0, 0.1])
    plain, scaled = distances.distances(source, target, 0), distances.distances(source * factors, target * factors, 0)
    assert scaled.mmd == pytest.approx(plain.mmd, rel=1e-6)
    assert scaled.coral == pytest.approx(plain.coral, rel=1e-6)
