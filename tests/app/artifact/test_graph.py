import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.artifact import graph
from app.errors import BadRequest
from tests.app.onnx_factories import backbone_bytes, backbone_reference, images, softmax


def run(data, **feeds):
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return dict(zip([item.name for item in session.get_outputs()], session.run(None, feeds), strict=True))


def head_weights(num_classes=4, num_features=6, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "weight_CD": rng.normal(size=(num_classes, num_features)),
        "bias_C": rng.normal(size=num_classes),
        "temperature": 1.7,
        "mean_D": rng.normal(size=num_features) * 3,
        "scale_D": rng.uniform(0.1, 3, num_features),
    }


def head_reference(features, weight_CD, bias_C, temperature, mean_D, scale_D):
    rows = []
    for row in features:
        standard = [(value - mean) / scale for value, mean, scale in zip(row, mean_D, scale_D, strict=True)]
        rows.append([(sum(w * x for w, x in zip(weights, standard, strict=True)) + b) / temperature
                     for weights, b in zip(weight_CD, bias_C, strict=True)])  # fmt: skip
    return softmax(rows)


def test_a_head_is_standardisation_then_weights_then_temperature():
    features = np.random.default_rng(2).normal(size=(9, 6)).astype(np.float32)
    found = run(graph.head_graph(**head_weights()), features=features)
    assert list(found) == ["probabilities"]
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], head_reference(features, **head_weights()), atol=1e-6)


def test_a_head_without_standardisation_is_the_weights_alone():
    weights = head_weights()
    features = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
    found = run(graph.head_graph(weights["weight_CD"], weights["bias_C"]), features=features)["probabilities"]
    plain = {**weights, "temperature": 1.0, "mean_D": np.zeros(6), "scale_D": np.ones(6)}
    np.testing.assert_allclose(found, head_reference(features, **plain), atol=1e-6)


def test_folding_keeps_precision_when_means_are_far_from_zero():
    weights = {**head_weights(num_features=64), "mean_D": np.full(64, 50.0), "scale_D": np.full(64, 0.5)}
    features = (50 + 0.5 * np.random.default_rng(4).normal(size=(5, 64))).astype(np.float32)
    found = run(graph.head_graph(**weights), features=features)["probabilities"]
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
        graph.head_graph(**{**head_weights(), **change})


def test_a_head_is_valid_onnx_of_the_stated_versions():
    model = onnx.load_model_from_string(graph.head_graph(**head_weights()))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (graph.IR_VERSION, graph.OPSET)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Softmax"]


@pytest.mark.parametrize(("opset", "ir_version"), [(18, 8), (18, 10), (20, 10), (23, 11)])
def test_a_composition_gives_what_its_parts_give_bit_for_bit(opset, ir_version):
    backbone, head, pixels = (
        backbone_bytes(opset=opset, ir_version=ir_version),
        graph.head_graph(**head_weights()),
        images(5),
    )
    composed = graph.compose(backbone, head)
    model = onnx.load_model_from_string(composed)
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == ["images"]
    assert model.ir_version == ir_version
    features = run(backbone, images=pixels)["features"]
    found = run(composed, images=pixels)
    assert list(found) == ["probabilities", "features"]
    np.testing.assert_array_equal(found["features"], features)
    np.testing.assert_array_equal(found["probabilities"], run(head, features=features)["probabilities"])
    np.testing.assert_allclose(features, backbone_reference(pixels), atol=1e-6)
    np.testing.assert_allclose(
        found["probabilities"], head_reference(backbone_reference(pixels), **head_weights()), atol=1e-6
    )


def test_composition_is_byte_deterministic_and_leaves_the_file_alone(tmp_path):
    path = tmp_path / "backbone.onnx"
    path.write_bytes(backbone_bytes())
    heads = [graph.head_graph(**head_weights()) for _ in range(2)]
    assert heads[0] == heads[1]
    assert graph.compose(path, heads[0]) == graph.compose(path.read_bytes(), heads[1])
    assert path.read_bytes() == backbone_bytes()


def test_composition_wants_features_of_the_heads_width():
    head = graph.head_graph(**head_weights(num_features=6))
    with pytest.raises(ValueError, match="width 6; found 5"):
        graph.compose(backbone_bytes(num_features=5), head)
    with pytest.raises(ValueError, match="found None"):
        graph.compose(head, head)


def test_composition_wants_a_recent_opset():
    model = onnx.load_model_from_string(backbone_bytes())
    model.opset_import[0].version = 12
    with pytest.raises(ValueError, match="opset 13 or later; found 12"):
        graph.compose(model.SerializeToString(), graph.head_graph(**head_weights()))


def write(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def refused(path, code, words, **limits):
    with pytest.raises(BadRequest, match=words) as caught:
        graph.check_importable(path, **limits)
    assert caught.value.code == code


def tiny():
    return onnx.load_model_from_string(backbone_bytes())


def test_plain_graphs_are_importable(tmp_path):
    graph.check_importable(write(tmp_path / "a.onnx", tiny()))
    (tmp_path / "head.onnx").write_bytes(graph.head_graph(**head_weights()))
    graph.check_importable(tmp_path / "head.onnx")


def test_a_large_file_is_refused_unread(tmp_path):
    path = write(tmp_path / "a.onnx", tiny())
    refused(path, "model_too_large", "at most 100 bytes", max_bytes=100)


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x00" * 64])
def test_other_bytes_are_refused(tmp_path, data):
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    refused(path, "model_unreadable", "export it again")


def external(name="weight"):
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def test_external_weights_are_refused_wherever_they_are(tmp_path):
    outer = tiny()
    outer.graph.initializer.append(external("stolen"))
    refused(write(tmp_path / "a.onnx", outer), "model_external_data", "stolen")

    constant = tiny()
    constant.graph.node.append(helper.make_node("Constant", [], ["c"], value=external("inside")))
    refused(write(tmp_path / "b.onnx", constant), "model_external_data", "inside")

    branch = helper.make_graph([], "branch", [], [], [external("deep")])
    nested = tiny()
    nested.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    refused(write(tmp_path / "c.onnx", nested), "model_external_data", "deep")


def test_custom_operators_are_refused_wherever_they_are(tmp_path):
    custom = helper.make_node("Rm", ["features"], ["gone"], domain="evil.ops")
    outer = tiny()
    outer.graph.node.append(custom)
    refused(write(tmp_path / "a.onnx", outer), "model_custom_operators", "evil.ops::Rm")

    branch = helper.make_graph([custom], "branch", [], [helper.make_tensor_value_info("gone", TensorProto.FLOAT, None)])
    nested = tiny()
    nested.graph.node.append(
        helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=copy.deepcopy(branch))
    )
    refused(write(tmp_path / "b.onnx", nested), "model_custom_operators", "evil.ops::Rm")


def test_functions_that_the_model_brings_itself_are_allowed_but_not_what_they_hide(tmp_path):
    def with_function(inner_domain):
        model = tiny()
        body = helper.make_node("Identity" if not inner_domain else "Rm", ["x"], ["y"], domain=inner_domain)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(inner_domain or "ai.onnx.ml", 1)]
        model.functions.append(helper.make_function("local", "copy", ["x"], ["y"], [body], opsets))
        model.opset_import.append(helper.make_opsetid("local", 1))
        model.graph.node.append(helper.make_node("copy", ["features"], ["again"], domain="local"))
        return model

    graph.check_importable(write(tmp_path / "a.onnx", with_function("")))
    refused(write(tmp_path / "b.onnx", with_function("evil.ops")), "model_custom_operators", "evil.ops::Rm")


def test_an_inconsistent_graph_is_refused(tmp_path):
    model = tiny()
    model.graph.node.append(helper.make_node("Relu", ["nowhere"], ["out"]))
    refused(write(tmp_path / "a.onnx", model), "model_unreadable", "nowhere")
