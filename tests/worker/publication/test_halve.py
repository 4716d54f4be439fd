"""Half precision where it has room for the numbers, on graphs whose numbers are known."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.serving.runtime import Session
from worker.publication.halve import LARGEST, halve

SIDE, WIDTH = 2, 3
IMAGES = np.random.default_rng(0).integers(1, 256, (4, SIDE, SIDE, 3), np.uint8)


def network(*scales):
    """Pixels, their mean, and one product by a scale for each; the last one is divided by all of them."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["x0"], keepdims=0),
    ]
    weights = [*scales, 1 / np.prod(scales)]
    nodes += [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(len(weights))]
    nodes.append(helper.make_node("Add", [f"x{len(weights)}", "shift"], ["features"]))
    graph = helper.make_graph(
        nodes,
        "scales",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", WIDTH])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.full(WIDTH, 1 / 3, np.float32), "shift"),
            *(numpy_helper.from_array(np.float32(np.eye(3) * scale), f"w{n}") for n, scale in enumerate(weights)),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def halved(folder, model, images=IMAGES):
    """Features in float32, on this processor, and rehearsed; and the kinds of the products' inputs."""
    plain, target = folder / "plain.onnx", folder / "half.onnx"
    plain.write_bytes(model.SerializeToString())
    rehearsal = halve(plain, [images[:2], images[2:]], target)
    found = [Session(path, 1).run(images)[0] for path in (plain, target, rehearsal)]
    graph = onnx.load(target).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return found, {name: kind == TensorProto.FLOAT16 for name, kind in kinds.items() if name.startswith("w")}, graph


def test_inputs_and_outputs_stay_what_they_are_and_layers_are_halved(tmp_path):
    (whole, half, rehearsed), halves, graph = halved(tmp_path, network(3.1, 0.7))
    assert halves == {"w0": True, "w1": True, "w2": True}
    kinds = [item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)]
    assert kinds == [TensorProto.UINT8, TensorProto.FLOAT]
    for found in (half, rehearsed):
        assert 0 < np.abs(found - whole).max() < 1e-2 * np.abs(whole).max()
    # What comes after the last layer with weights was added in float32, whose last digits half precision has not.
    assert (np.float16(rehearsed) != rehearsed).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.onnx", "half.rehearsal.onnx", "plain.onnx"]


def test_numbers_without_room_stay_in_float32(tmp_path):
    """200 times 1,000 is more than half precision ends at; what neither reads nor writes it is halved."""
    (whole, half, rehearsed), halves, _ = halved(tmp_path, network(1.5, 1000, 0.5, 0.001))
    # Layer 1 writes it, 2 reads it and writes it halved, which is still too much, 3 reads that.
    assert halves == {"w0": True, "w1": False, "w2": False, "w3": False, "w4": True}
    for found in (half, rehearsed):
        np.testing.assert_allclose(found, whole, rtol=5e-3)


def test_weights_without_room_stay_in_float32(tmp_path):
    (whole, _, rehearsed), halves, _ = halved(tmp_path, network(1e-6, 1e5, 1.5))
    assert halves["w1"] is False
    np.testing.assert_allclose(rehearsed, whole, rtol=1e-1)


def test_the_rehearsal_overflows_where_a_gpu_would(tmp_path):
    """Calibrated on pictures much darker than those to come: this processor hides what the rehearsal shows."""
    dark = np.ones_like(IMAGES)
    plain, target = tmp_path / "plain.onnx", tmp_path / "half.onnx"
    plain.write_bytes(network(LARGEST / 4).SerializeToString())
    rehearsal = halve(plain, [dark], target)
    here, rehearsed = (Session(path, 1) for path in (target, rehearsal))
    assert np.isfinite(here.run(IMAGES)[0]).all()
    assert not np.isfinite(rehearsed.run(IMAGES)[0]).any()
    assert np.isfinite(rehearsed.run(dark)[0]).all()
