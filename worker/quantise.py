"""A backbone's graph in whole numbers of 8 bits: static, calibrated on images, weights by channel. Torch-free.

Krishnamoorthi, arXiv 1806.08342; Nagel et al., arXiv 2106.08295, section 3; onnxruntime's QDQ form.

Processors without VNNI add pairs of products in 16 bits, which overflow with weights of 8 bits: a graph that is made on
such a one has 7. That costs much (EfficientNet-Lite0 on emoji, all layers: features 0.27 of their length off, not
0.13), so not everywhere; a graph with 8 that overflows where it is served fails its trial there. What prepares the
pixels, the first layers and what pools the features stay in floating point.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.machine import dot_products

INPUT = "images"
# Where the time goes, and what lies between two of them; everything else is left as it is.
OPERATORS = ("Conv", "MatMul", "Gemm", "Add", "Clip", "Relu", "MaxPool")
# Operators that carry weights: what comes before the first and after the last of them keeps its precision.
WEIGHTED = frozenset({"Conv", "MatMul", "Gemm"})
# The first of them see pixels, and everything after them their rounding. EfficientNet-Lite0 on emoji, features off by
# a share of their length, and seconds of one core for 16 images (0.23 in floating point): none left out 0.13 and 0.11,
# the first three 0.09 and 0.13, six 0.05 and 0.13, twelve 0.05 and 0.17.
FLOAT_LAYERS = 6


def quantise(graph: Path, batches: Iterable[NDArray[np.uint8]], target: Path) -> None:
    """Writes the graph with 8-bit weights and activations.

    Args:
        graph: `images` -> `features`.
        batches: what ranges of activations are read off: the smallest and the largest value.
        target: of the new graph; same inputs and outputs.

    Shape:
        batches: each [N, H, W, 3]

    Raises:
        ValueError: the graph has nothing to quantise.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[NDArray[np.uint8]] = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            """The next batch; None after the last."""
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    model = onnx.load(graph)
    # A graph that was joined of two names ONNX twice, which the tool does not take.
    version = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", version))
    nodes = _within(model)
    if not nodes:
        raise ValueError(f"expected operators {', '.join(sorted(WEIGHTED))} with weights; found none")
    logger = logging.getLogger()
    level = logger.level
    # It advises to run another tool first, which fuses what our exporter has fused.
    logger.setLevel(logging.ERROR)
    try:
        quantization.quantize_static(
            model,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=not dot_products(),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
    finally:
        logger.setLevel(level)
    _clean(target)


def _within(model: Any) -> list[str]:
    """Names of the nodes between the first layers and the last with weights, in the graph's order."""
    nodes = list(model.graph.node)
    weights = {tensor.name for tensor in model.graph.initializer}
    places = [
        place for place, node in enumerate(nodes) if node.op_type in WEIGHTED and weights.intersection(node.input)
    ]
    if not places:
        return []
    # A small network has no first layers to spare.
    first = places[FLOAT_LAYERS if len(places) > 2 * FLOAT_LAYERS else 0]
    for place, node in enumerate(nodes):
        node.name = node.name or f"node_{place}"
    chosen = nodes[first : places[-1] + 1]
    return [node.name for node in chosen if node.op_type in OPERATORS]


def _clean(path: Path) -> None:
    """The same graph for the same images: without what the tool notes about itself."""
    import onnx

    model = onnx.load(path)
    model.ClearField("metadata_props")
    model.producer_name, model.producer_version = "graft", ""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
