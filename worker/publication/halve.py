"""A backbone's graph in half precision, with float32 where that overflows. Torch-free.

Micikevicius et al., arXiv 1710.03740: IEEE half precision has 11 bits of a number and ends at 65,504. What prepares the
pixels and what pools the features stays in float32, and so does each node that meets larger numbers than `LARGEST`.

onnxruntime on a processor computes such a graph in float32: of it only the weights are rounded, and nothing overflows
(1.32 on x86: 200 times 1,000 in half precision gave 200,000). So there is a rehearsal beside the graph: float32
throughout, with every value rounded, or overflown, that a GPU would hold in half precision. That one is judged.
"""

from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

from worker.publication import calibration
from worker.publication.calibration import Batches

# A fourth of what half precision can hold: images to come reach further than those that ranges are read off.
LARGEST = 65504 / 4


def halve(graph: Path, batches: Batches, target: Path) -> Path:
    """Writes the graph in half precision.

    Args:
        graph: `images` -> `features`.
        batches: what ranges of activations are read off, to see where they overflow.
        target: of the new graph; same inputs and outputs.

    Returns:
        the rehearsal, which shows on a processor what the new graph says on a GPU; beside the target.

    Shape:
        batches: each [N, H, W, 3]

    Raises:
        ValueError: the graph has no weights.
    """
    from onnxruntime.transformers import float16

    model = calibration.load(graph)
    kept = _outside(model) | _overflowing(model, batches, target)
    model = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=sorted(kept))
    _join(model.graph)
    _sort(model.graph)
    _infer(model)
    calibration.write(model, target)
    rehearsal = target.with_suffix(".rehearsal.onnx")
    calibration.write(_rehearsed(model), rehearsal)
    return rehearsal


def _outside(model: Any) -> set[str]:
    """Nodes before the first and after the last with weights."""
    places = calibration.weighted(model)
    nodes = model.graph.node
    return {node.name for node in [*nodes[: places[0]], *nodes[places[-1] + 1 :]]}


def _overflowing(model: Any, batches: Batches, target: Path) -> set[str]:
    """Nodes that read or write numbers which half precision has no room for."""
    import onnx
    from onnxruntime import quantization

    plain, told = target.with_suffix(".plain.onnx"), target.with_suffix(".ranges.onnx")
    onnx.save(model, plain)
    calibrator = quantization.calibrate.create_calibrator(plain, augmented_model_path=str(told))
    calibrator.collect_data(calibration.reader(batches))
    large = {
        name for name, found in calibrator.compute_data().items() if max(map(_largest, found.range_value)) > LARGEST
    }
    large |= {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and _largest(onnx.numpy_helper.to_array(tensor)) > LARGEST
    }
    for path in (plain, told):
        path.unlink()
    return {node.name for node in model.graph.node if large.intersection([*node.input, *node.output])}


def _largest(values: Any) -> float:
    return float(np.abs(values).max(initial=0))


def _join(graph: Any) -> None:
    """Two nodes that stay in float32 hand each other float32: the tool puts half precision between them."""
    import onnx

    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        source = made.get(node.input[0]) if _casts(node, onnx.TensorProto.FLOAT) else None
        if source is not None and _casts(source, onnx.TensorProto.FLOAT16):
            node.CopyFrom(onnx.helper.make_node("Identity", [source.input[0]], list(node.output), node.name))
    read = {name for node in graph.node for name in node.input}
    left = [node for node in graph.node if not _casts(node, onnx.TensorProto.FLOAT16) or read.intersection(node.output)]
    _put(graph, left)


def _casts(node: Any, kind: int) -> bool:
    return node.op_type == "Cast" and any(item.name == "to" and item.i == kind for item in node.attribute)


def _sort(graph: Any) -> None:
    """Nodes behind those whose outputs they read, as ONNX wants it; the tool puts its own at the end."""
    nodes = list(graph.node)
    made = {output: place for place, node in enumerate(nodes) for output in node.output}
    before = {place: [made[name] for name in node.input if name in made] for place, node in enumerate(nodes)}
    _put(graph, [nodes[place] for place in TopologicalSorter(before).static_order()])


def _put(graph: Any, nodes: list[Any]) -> None:
    """Replaces the nodes; copies, since a list of the graph's own goes with them."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _infer(model: Any) -> None:
    """Types of all values anew: some of those that the tool leaves behind are of values that are gone."""
    import onnx

    del model.graph.value_info[:]
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def _rehearsed(model: Any) -> Any:
    """The graph in float32, where each value that was in half precision goes through a cast to it and back."""
    import onnx

    half, whole = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    found = onnx.ModelProto.FromString(model.SerializeToString())
    graph = found.graph
    rounded = {info.name for info in graph.value_info if info.type.tensor_type.elem_type == half}
    constants = [item.t for node in graph.node for item in node.attribute if item.HasField("t")]
    for tensor in [*graph.initializer, *constants]:
        if tensor.data_type == half:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for item in node.attribute:
            if item.name == "to" and item.i == half:
                item.i = whole
        for place, name in enumerate(node.output):
            if name in rounded:
                node.output[place] = f"{name}_exact"
                nodes += [
                    onnx.helper.make_node("Cast", [f"{name}_exact"], [f"{name}_half"], to=half),
                    onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=whole),
                ]
    _put(graph, nodes)
    del graph.value_info[:]
    return found
