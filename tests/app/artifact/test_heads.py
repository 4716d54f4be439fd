import numpy as np
import onnx
import pytest

from app.artifact import graph, heads
from tests.app.onnx_factories import head_reference, head_weights, run, unit_reference


def test_a_head_is_standardisation_then_weights_then_temperature():
    features = np.random.default_rng(2).normal(size=(9, 6)).astype(np.float32)
    found = run(heads.linear(**head_weights()), features=features)
    assert list(found) == ["probabilities"]
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], head_reference(features, **head_weights()), atol=1e-6)


def test_a_head_without_standardisation_is_the_weights_alone():
    weights = head_weights()
    features = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
    found = run(heads.linear(weights["weight_CD"], weights["bias_C"]), features=features)["probabilities"]
    plain = {**weights, "temperature": 1.0, "mean_D": np.zeros(6), "scale_D": np.ones(6)}
    np.testing.assert_allclose(found, head_reference(features, **plain), atol=1e-6)


def test_folding_keeps_precision_when_means_are_far_from_zero():
    weights = {**head_weights(num_features=64), "mean_D": np.full(64, 50.0), "scale_D": np.full(64, 0.5)}
    features = (50 + 0.5 * np.random.default_rng(4).normal(size=(5, 64))).astype(np.float32)
    found = run(heads.linear(**weights), features=features)["probabilities"]
    np.testing.assert_allclose(found, head_reference(features, **weights), atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"scale_D": np.array([1, 1, 0, 1, 1, 1.0])},
        {"scale_D": np.array([1, 1, np.nan, 1, 1, 1.0])},
        {"mean_D": np.zeros(5)},
        {"bias_C": np.zeros(3)},
        {"weight_CD": np.full((4, 6), np.inf)},
        {"weight_CD": np.full((4, 6), 1e39)},
        {"temperature": float("inf")},
        {"weight_CD": np.zeros((0, 6)), "bias_C": np.zeros(0)},
    ],
)
def test_a_head_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match="expected"):
        heads.linear(**{**head_weights(), **change})


def test_a_head_is_valid_onnx_of_the_stated_versions():
    model = onnx.load_model_from_string(heads.linear(**head_weights()))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (graph.IR_VERSION, graph.OPSET)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Softmax"]


def test_a_cosine_head_meets_the_centred_feature_of_length_one():
    weights = head_weights()
    features = np.random.default_rng(5).normal(size=(9, 6)).astype(np.float32)
    mean, temperature = weights["mean_D"], weights["temperature"]
    found = run(heads.cosine(weights["weight_CD"], weights["bias_C"], temperature, mean), features=features)
    plain = {**weights, "mean_D": np.zeros(6), "scale_D": np.ones(6)}
    expected = head_reference(unit_reference(features, mean), **plain)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)


def test_a_feature_without_direction_has_no_favourite_but_the_bias():
    weight, bias = np.eye(3), np.array([0.0, 1.0, 0.0])
    mean = np.array([1.0, 2.0, 3.0], np.float32)
    found = run(heads.cosine(weight, bias, 1.0, mean), features=mean[None])["probabilities"][0]
    np.testing.assert_allclose(found, np.exp(bias) / np.exp(bias).sum(), atol=1e-6)


def test_a_cosine_head_is_valid_onnx():
    model = onnx.load_model_from_string(heads.cosine(np.eye(3), np.zeros(3), 1.0, np.zeros(3)))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("mean", [np.zeros(4), np.array([0.0, np.nan, 0.0])])
def test_a_cosine_head_wants_a_finite_mean_of_the_features_width(mean):
    with pytest.raises(ValueError, match="finite mean"):
        heads.cosine(np.eye(3), np.zeros(3), 1.0, mean)
