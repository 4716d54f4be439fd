import json

import numpy as np
import pytest
from sklearn.decomposition import PCA

from worker.evaluate import feature_map
from worker.evaluate.feature_map import Group


def test_axes_are_the_principal_components() -> None:
    rng = np.random.default_rng(0)
    feats = (rng.normal(size=(300, 6)) @ rng.normal(size=(6, 80)) + rng.normal(size=(300, 80)) + 7).astype(np.float32)
    found, explained = feature_map.principal(feats)
    known = PCA(2, svd_solver="full").fit(feats)
    expected = known.transform(feats)
    for axis in range(2):
        assert abs(np.corrcoef(found[:, axis], expected[:, axis])[0, 1]) == pytest.approx(1, abs=1e-4)
        assert np.abs(found[:, axis]).max() == pytest.approx(np.abs(expected[:, axis]).max(), rel=1e-3)
        assert found[np.abs(found[:, axis]).argmax(), axis] > 0
    assert explained == pytest.approx(known.explained_variance_ratio_, rel=1e-3)


@pytest.mark.parametrize("shape", [(5, 1), (3, 40), (4, 2)])
def test_small_shapes_are_exact(shape: tuple[int, int]) -> None:
    feats = np.random.default_rng(1).normal(size=shape)
    found, explained = feature_map.principal(feats)
    values = np.linalg.svd(feats - feats.mean(0), compute_uv=False)
    shares = np.square(values) / np.square(values).sum()
    assert explained[: min(2, len(shares))] == pytest.approx(shares[:2], abs=1e-5)
    assert found.shape == (shape[0], 2)


def test_equal_features_lie_in_one_point() -> None:
    found, explained = feature_map.principal(np.ones((6, 3)))
    assert not found.any()
    assert not explained.any()


def test_a_map_has_a_bounded_part_of_each_group() -> None:
    rng = np.random.default_rng(2)
    rows = feature_map.part(2000, seed=0)
    assert len(set(rows.tolist())) == feature_map.MAX_ITEMS
    assert feature_map.part(7, seed=0).tolist() == list(range(7))
    groups = [
        Group("source", 2000, rng.normal(size=(500, 4)), np.zeros(500, np.int64)),
        Group("target", 3, rng.normal(size=(3, 4)), np.array([1, -1, 0]), np.array([True, False, True])),
    ]
    found = feature_map.feature_map(groups, ("a", "b"), "features")
    assert found is not None
    source, target = found["groups"]
    assert (source["num_items"], len(source["x"]), source["correct"]) == (2000, 500, None)
    assert (target["label"], target["correct"]) == ([1, -1, 0], [1, 0, 1])
    assert len(json.dumps(found)) < 20_000
    assert feature_map.feature_map([Group("one", 1, np.ones((1, 4)), np.zeros(1, np.int64))], ("a",), "f") is None
