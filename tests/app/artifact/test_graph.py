import copy

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.artifact import graph, heads
from app.errors import BadRequest
from tests.app.onnx_factories import backbone_bytes, backbone_reference, head_reference, head_weights, images, run


@pytest.mark.parametrize(("opset", "ir_version"), [(18, 8), (18, 10), (20, 10), (23, 11)])
def test_a_composition_gives_what_its_parts_give_bit_for_bit(opset, ir_version):
    backbone, head, pixels = (
        backbone_bytes(opset=opset, ir_version=ir_version),
        heads.linear(**head_weights()),
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
    made = [heads.linear(**head_weights()) for _ in range(2)]
    assert made[0] == made[1]
    assert graph.compose(path, made[0]) == graph.compose(path.read_bytes(), made[1])
    assert path.read_bytes() == backbone_bytes()


def test_composition_wants_features_of_the_heads_width():
    head = heads.linear(**head_weights(num_features=6))
    with pytest.raises(ValueError, match="width 6; found 5"):
        graph.compose(backbone_bytes(num_features=5), head)
    with pytest.raises(ValueError, match="found None"):
        graph.compose(head, head)


def test_composition_wants_a_recent_opset():
    model = onnx.load_model_from_string(backbone_bytes())
    model.opset_import[0].version = 12
    with pytest.raises(ValueError, match="opset 13 or later; found 12"):
        graph.compose(model.SerializeToString(), heads.linear(**head_weights()))


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
    (tmp_path / "head.onnx").write_bytes(heads.linear(**head_weights()))
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
