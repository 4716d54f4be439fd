"""What a graph from outside may consist of."""

import copy

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.artifact import alignment, foreign, heads
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


def grown(model, *nodes, **constants):
    """The model with nodes behind its last, and the arrays that they name."""
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def of_pixels():
    """0, and 1 once the first feature is that of a certain image: a run that is tried beforehand shows it nowhere."""
    return [
        helper.make_node("GreaterOrEqual", ["features", "magic"], ["is_magic"]),
        helper.make_node("Cast", ["is_magic"], ["flags"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["flags", "all"], ["n"], keepdims=0),
        helper.make_node("Reshape", ["n", "flat"], ["of_pixels"]),
    ]


ABOUT_PIXELS = {"magic": np.array(1e6, np.float32), "all": np.array([0, 1], np.int64), "flat": np.array([1], np.int64)}


def bomb():
    """Terabytes, behind a size that is counted off as many numbers as the pixels say."""
    nodes = [
        *of_pixels(),
        helper.make_node("Slice", ["flat", "start", "of_pixels"], ["some"]),
        helper.make_node("Shape", ["some"], ["counted"]),
        helper.make_node("Mul", ["counted", "many"], ["large"]),
        helper.make_node("ConstantOfShape", ["large"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros", "start"], ["nothing"], keepdims=0),
    ]
    return grown(tiny(), *nodes, start=np.array([0], np.int64), many=np.array([10**12], np.int64), **ABOUT_PIXELS)


def test_a_size_that_hides_pixels_behind_another_result_is_refused(tmp_path):
    refused(write(tmp_path / "a.onnx", bomb()), "model_custom_operators", "Slice .* depends on pixels")


def test_a_size_that_chance_decides_is_refused(tmp_path):
    """Dropout as in training, of ones alone: no pixel goes in, and another size comes out each time."""
    model = grown(
        tiny(),
        helper.make_node("Dropout", ["ones", "half", "training"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["size"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        ones=np.ones(1, np.float32),
        half=np.array(0.5, np.float32),
        training=np.array(True),
    )
    refused(write(tmp_path / "a.onnx", model), "model_custom_operators", "ConstantOfShape .* depends on pixels")


# Whole numbers by their type that no result's size depends on: places in data.
NO_SIZE = {
    ("CumSum", 1), ("Gather", 1), ("GatherElements", 1), ("GatherND", 1), ("RotaryEmbedding", 3),
    ("ScatterElements", 1), ("ScatterND", 1), ("Trilu", 1),
}  # fmt: skip
DATA = ("BitShift", "Bitwise", "ConvInteger", "DequantizeLinear", "MatMulInteger", "QLinear", "QuantizeLinear")


def whole_numbers(operator):
    """Places of the inputs that take whole numbers alone, in any version of an operator that a model may name."""
    for version in range(foreign.MIN_OPSET, onnx.defs.onnx_opset_version() + 1):
        if not onnx.defs.has(operator, version, ""):
            continue
        schema = onnx.defs.get_schema(operator, version, "")
        types = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        for place, given in enumerate(schema.inputs):
            if all("int" in one for one in types.get(given.type_str, [given.type_str])):
                yield operator, place


def test_every_input_that_is_a_size_is_known():
    """Sizes, axes, places and counts are whole numbers; those of an allowed operator that are none are named here."""
    found = {one for name in foreign.OPERATORS if not name.startswith(DATA) for one in whole_numbers(name)}
    known = {(name, place) for name, places in foreign.SIZES.items() for place in places}
    assert found - known == NO_SIZE
    # What is left are numbers of any type.
    places = {("OneHot", 1), ("Range", 0), ("Range", 1), ("Range", 2), ("Resize", 1), ("Resize", 2)}
    assert known - found <= places
    assert foreign.SIZES.keys() <= foreign.OPERATORS


@pytest.mark.parametrize(("operator", "place"), [(name, at) for name in foreign.SIZES for at in foreign.SIZES[name]])
def test_no_size_is_taken_from_pixels(tmp_path, operator, place):
    schema = onnx.defs.get_schema(operator, 18, "")
    names, outputs = ["flat"] * max(schema.min_input, place + 1), [f"out {at}" for at in range(schema.min_output)]

    def taking(size):
        node = helper.make_node(operator, [*names[:place], size, *names[place + 1 :]], outputs)
        return grown(tiny(), helper.make_node("Shape", ["images"], ["of_sizes"]), *of_pixels(), node, **ABOUT_PIXELS)

    foreign.check_importable(write(tmp_path / "a.onnx", taking("of_sizes")))
    refused(write(tmp_path / "b.onnx", taking("of_pixels")), "model_custom_operators", f"{operator} .* on pixels")


def test_weights_that_are_listed_as_inputs_are_no_pixels(tmp_path):
    """As exporters wrote them once; the runtime takes them for constants."""
    model = grown(tiny(), helper.make_node("Reshape", ["features", "flat"], ["line"]), flat=np.array([-1], np.int64))
    model.graph.input.append(helper.make_tensor_value_info("flat", TensorProto.INT64, [1]))
    foreign.check_importable(write(tmp_path / "a.onnx", model))


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


def test_what_heads_and_prepared_backbones_consist_of_is_allowed(tmp_path):
    """Heads and alignments of every kind, and the networks that are at hand."""
    weight, bias = np.ones((3, 6)), np.zeros(3)
    unit = np.eye(6)
    made = [
        heads.cosine(weight, bias, 1.0, np.zeros(6)),
        heads.neighbours(unit, np.arange(6) % 3, 2, 3, 1.0, np.zeros(6)),
        heads.text(np.ones((4, 6)), np.zeros(4), np.ones((4, 5)), np.ones((3, 5)), 2, (weight, np.zeros(6))),
        heads.network(np.ones((4, 6)), np.zeros(4), np.ones((3, 4)), bias, 1.0, np.zeros(6), np.ones(6)),
    ]
    made += [alignment.affine(np.ones(6), np.zeros(6)), alignment.affine(unit, np.zeros(6))]
    for data in made:
        (tmp_path / "made.onnx").write_bytes(data)
        foreign.check_importable(tmp_path / "made.onnx")
    paths = list(Settings().prepared.glob("*/*.onnx"))
    assert paths
    for path in paths:
        foreign.check_importable(path)


def test_an_inconsistent_graph_is_refused(tmp_path):
    model = tiny()
    model.graph.node.append(helper.make_node("Relu", ["nowhere"], ["out"]))
    refused(write(tmp_path / "a.onnx", model), "model_unreadable", "nowhere")
