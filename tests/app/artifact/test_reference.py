"""References: what is kept of some items, and what chance makes of distances."""

import numpy as np
import pytest

from app.artifact import reference, tensors


def items(number, num_features=40, seed=0):
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.normal(size=(number, 8)) @ rng.normal(size=(8, num_features)), 0)
    logits = features[:, :4] * 2
    return features.astype(np.float32), np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_what_is_kept_is_what_the_items_say(tmp_path):
    features, probabilities = items(90)
    made = reference.make(features, probabilities)
    (tmp_path / "reference.safetensors").write_bytes(tensors.dump(reference.pack(made)))
    found = reference.unpack(tensors.load(tmp_path / "reference.safetensors"), 40, 4)
    assert found.num_items == 90
    np.testing.assert_allclose(found.mean_D, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.variance_D, features.var(0, ddof=1), rtol=1e-5)
    assert found.labels_C.tolist() == np.bincount(probabilities.argmax(1), minlength=4).tolist()
    best = probabilities.max(1)
    for place, edge in enumerate(reference.SCORE_EDGES):
        assert found.scores_B[: place + 1].sum() == (best <= edge).sum()
    assert found.scores_B.sum() == 90
    assert found.null == made.null


def test_halvings_give_the_cumulants_that_the_covariance_has():
    """Of a weighted sum of chi-squares: variance 2 tr(C^2) / tr(C)^2, skew from tr(C^3); here of a known covariance."""
    variances = np.array([9.0, 4.0, 4.0, 1.0, *[0.25] * 20])
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1000, len(variances))) * np.sqrt(variances)
    null = reference.make(features, np.full((1000, 2), 0.5)).null
    one, two, three = ((variances**power).sum() for power in (1, 2, 3))
    assert null.shift_deviation == pytest.approx(np.sqrt(2 * two) / one, rel=0.15)
    assert null.shift_skew == pytest.approx(8 * three / (2 * two) ** 1.5, rel=0.4)
    # |x|^2 of a normal has variance 2 tr(C^2); a logarithm of roots halves what is relative.
    assert null.spread_deviation == pytest.approx(np.sqrt(2 * two) / one / 2, rel=0.15)


def test_one_written_by_a_newer_graft_is_not_misread():
    packed = reference.pack(reference.make(*items(10)))
    assert reference.unpack({**packed, "version": np.array(2)}, 40, 4) is None


@pytest.mark.parametrize(
    "change",
    [
        {"mean": np.zeros(39, np.float32)},
        {"labels": np.array([10, 0, 0], np.int64)},
        {"labels": np.array([11, 0, 0, 0], np.int64)},
        {"labels": np.array([11, -1, 0, 0], np.int64)},
        {"null": np.zeros(2)},
        {"num_items": np.zeros(3, np.int64)},
    ],
)
def test_arrays_of_something_else_are_refused(change):
    packed = reference.pack(reference.make(*items(10)))
    with pytest.raises((ValueError, TypeError)):
        reference.unpack({**packed, **change}, 40, 4)
    with pytest.raises(KeyError):
        reference.unpack({name: array for name, array in packed.items() if name != "mean"}, 40, 4)


def test_features_that_never_move_have_no_null():
    null = reference.make(np.ones((40, 3)), np.full((40, 2), 0.5)).null
    assert null == reference.Null(0.0, 0.0, 0.0)


def test_too_few_items_are_refused():
    features, probabilities = items(2)
    with pytest.raises(ValueError, match="at least two items; found 1"):
        reference.make(features[:1], probabilities[:1])
    with pytest.raises(ValueError, match="found 2 and 1"):
        reference.make(features, probabilities[:1])
