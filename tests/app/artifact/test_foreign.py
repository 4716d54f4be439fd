"""What a graph from outside may consist of."""

import copy

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.artifact import foreign, heads
from app.errors import BadRequest
from app.settings import Settings
from tests.app.onnx_factories import backbone_bytes, head_weights


def write(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def refused(path, code, words, **limits):
    with pytest.raises(BadRequest, match=words) as caught:
        foreign.check_importable(path, **limits)
    assert caught.value.code == code


def tiny():
    return onnx.load_model_from_string(backbone_bytes())


def test_plain_graphs_are_importable(tmp_path):
    foreign.check_importable(write(tmp_path / "a.onnx", tiny()))
    (tmp_path / "head.onnx").write_bytes(heads.linear(**head_weights()))
    foreign.check_importable(tmp_path / "head.onnx")


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


def test_functions_that_the_model_brings_itself_are_refused(tmp_path):
    model = tiny()
    opsets = [helper.make_opsetid("", 18)]
    body = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("local", "copy", ["x"], ["y"], [body], opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("copy", ["features"], ["again"], domain="local"))
    refused(write(tmp_path / "a.onnx", model), "model_custom_operators", "function copy")


@pytest.mark.parametrize("operator", ["NonZero", "RandomNormalLike", "SequenceEmpty", "ImageDecoder", "Multinomial"])
def test_operators_that_do_not_only_compute_are_refused(tmp_path, operator):
    assert operator not in foreign.OPERATORS
    model = tiny()
    model.graph.node.append(helper.make_node(operator, ["features"], ["found"]))
    refused(write(tmp_path / "a.onnx", model), "model_custom_operators", operator)


def test_sizes_may_follow_the_images_but_not_their_pixels(tmp_path):
    def with_zeros(*of):
        model = tiny()
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
        model.graph.node.extend([*of, helper.make_node("ConstantOfShape", ["sizes"], ["zeros"])])
        return model

    foreign.check_importable(write(tmp_path / "a.onnx", with_zeros(helper.make_node("Shape", ["images"], ["sizes"]))))
    seen = [
        helper.make_node("ArgMax", ["features"], ["best"], axis=1, keepdims=0),
        helper.make_node("Slice", ["best", "zero_", "one"], ["sizes"]),
    ]
    model = with_zeros(*seen)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "zero_"))
    refused(write(tmp_path / "b.onnx", model), "model_custom_operators", "depends on pixels")


def test_numbers_must_be_finite_but_for_a_single_bound(tmp_path):
    def with_array(array):
        model = tiny()
        model.graph.initializer.append(numpy_helper.from_array(array, "extra"))
        return model

    foreign.check_importable(write(tmp_path / "a.onnx", with_array(np.array(-np.inf, np.float32))))
    for array in (np.array(np.nan, np.float32), np.array([1, np.inf], np.float16)):
        refused(write(tmp_path / "b.onnx", with_array(array)), "weights_not_finite", "extra")


def test_weights_must_fill_their_shape(tmp_path):
    model = tiny()
    model.graph.initializer[2].dims[0] = 2**40
    refused(write(tmp_path / "a.onnx", model), "model_unreadable", "weight")


def test_what_heads_and_prepared_backbones_consist_of_is_allowed():
    """Heads of every kind, and the networks that are at hand."""
    weight, bias = np.ones((3, 6)), np.zeros(3)
    unit = np.eye(6)
    made = [
        heads.cosine(weight, bias, 1.0, np.zeros(6)),
        heads.neighbours(unit, np.arange(6) % 3, 2, 3, 1.0, np.zeros(6)),
        heads.text(np.ones((4, 6)), np.zeros(4), np.ones((4, 5)), np.ones((3, 5)), 2, (weight, np.zeros(6))),
        heads.network(np.ones((4, 6)), np.zeros(4), np.ones((3, 4)), bias, 1.0, np.zeros(6), np.ones(6)),
    ]
    paths = list(Settings().prepared.glob("*/backbone.onnx"))
    assert paths
    for model in [*map(onnx.load_model_from_string, made), *(onnx.load_model(path) for path in paths)]:
        assert {node.op_type for node in model.graph.node} <= foreign.OPERATORS


def test_an_inconsistent_graph_is_refused(tmp_path):
    model = tiny()
    model.graph.node.append(helper.make_node("Relu", ["nowhere"], ["out"]))
    refused(write(tmp_path / "a.onnx", model), "model_unreadable", "nowhere")
