"""What both makers of a second graph do: read a backbone's graph, show it images, and write what became of it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUT = "images"
# Operators that carry weights: what comes before the first and after the last of them keeps its precision.
WEIGHTED = frozenset({"Conv", "MatMul", "Gemm"})
Batches = Iterable[NDArray[np.uint8]]


def load(path: Path) -> Any:
    """The graph as the tools take it: every node has a name, and ONNX is named once (a joined graph names it twice)."""
    import onnx

    model = onnx.load(path)
    version = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", version))
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"
    return model


def weighted(model: Any) -> list[int]:
    """Places of the nodes that carry weights, in the graph's order.

    Raises:
        ValueError: there are none.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    places = [
        place
        for place, node in enumerate(model.graph.node)
        if node.op_type in WEIGHTED and weights.intersection(node.input)
    ]
    if not places:
        raise ValueError(f"expected operators {', '.join(sorted(WEIGHTED))} with weights; found none")
    return places


def reader(batches: Batches) -> Any:
    """Batches as onnxruntime's calibration reads them.

    Shape:
        batches: each [N, H, W, 3]
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[NDArray[np.uint8]] = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            """The next batch; None after the last."""
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


def write(model: Any, path: Path) -> None:
    """The same bytes for the same images: without what the tools note about themselves."""
    import onnx

    model.ClearField("metadata_props")
    model.producer_name, model.producer_version = "graft", ""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
