"""A backbone's graph in whole numbers of 8 bits: static, calibrated on images, weights by channel. Torch-free.

Krishnamoorthi, arXiv 1806.08342; Nagel et al., arXiv 2106.08295, section 3; onnxruntime's QDQ form.

Processors without VNNI add pairs of products in 16 bits, which overflow with weights of 8 bits: a graph that is made on
such a one has 7. That costs much (EfficientNet-Lite0 on emoji, all layers: features 0.27 of their length off, not
0.13), so not everywhere; a graph with 8 that overflows where it is served fails its trial there. What prepares the
pixels, the first layers and what pools the features stay in floating point.
"""

import logging
from pathlib import Path
from typing import Any

from worker.attempt.machine import dot_products
from worker.publication import calibration
from worker.publication.calibration import Batches

# Where the time goes, and what lies between two of them; everything else is left as it is.
OPERATORS = ("Conv", "MatMul", "Gemm", "Add", "Clip", "Relu", "MaxPool")
# Of the layers with weights, the first see pixels, and all others their rounding. EfficientNet-Lite0 on emoji, features
# off by a share of their length, and seconds of one core for 16 images (0.23 in floating point): none left out 0.13 and
# 0.11, the first three 0.09 and 0.13, six 0.05 and 0.13, twelve 0.05 and 0.17.
FLOAT_LAYERS = 6


def quantise(graph: Path, batches: Batches, target: Path) -> Path:
    """Writes the graph with 8-bit weights and activations.

    Args:
        graph: `images` -> `features`.
        batches: what ranges of activations are read off: the smallest and the largest value.
        target: of the new graph; same inputs and outputs.

    Returns:
        the graph that shows on a processor what the new one says: itself.

    Shape:
        batches: each [N, H, W, 3]

    Raises:
        ValueError: the graph has nothing to quantise.
    """
    import onnx
    from onnxruntime import quantization

    model = calibration.load(graph)
    nodes = _within(model)
    logger = logging.getLogger()
    level = logger.level
    # It advises to run another tool first, which fuses what our exporter has fused.
    logger.setLevel(logging.ERROR)
    try:
        quantization.quantize_static(
            model,
            target,
            calibration.reader(batches),
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
    calibration.write(onnx.load(target), target)
    return target


def _within(model: Any) -> list[str]:
    """Names of the nodes between the first layers and the last with weights, in the graph's order."""
    places = calibration.weighted(model)
    # A small network has no first layers to spare.
    first = places[FLOAT_LAYERS if len(places) > 2 * FLOAT_LAYERS else 0]
    return [node.name for node in model.graph.node[first : places[-1] + 1] if node.op_type in OPERATORS]
