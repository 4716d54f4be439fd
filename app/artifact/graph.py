"""ONNX without torch: a head put on an exported backbone.

A job only attaches its head (a few milliseconds); the backbone's graph is exported once per digest and never rewritten.
Everything is bytes in, bytes out, and equal input gives equal bytes, so that digests name graphs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What torch's exporter writes and onnxruntime 1.23 reads. Gemm and Softmax have not changed since opset 13, so a head
# can take the opset of whatever backbone it is put on.
OPSET = 18
IR_VERSION = 10
MIN_OPSET = 13


def compose(backbone: Path | bytes, head: bytes) -> bytes:
    """`model.onnx`: backbone and head as one graph, `images` -> `probabilities`, `features`.

    Composed when it is asked for, not stored: it would hold the shared backbone once more for every model. Names inside
    get the prefixes `backbone/` and `head/`, so that no two can meet; inputs and outputs keep theirs.

    Raises:
        ValueError: the backbone has no output `features`, or its width is not the head's.
    """
    import onnx
    from onnx import compose as onnx_compose

    lower = onnx.load_model_from_string(backbone if isinstance(backbone, bytes) else backbone.read_bytes())
    upper = onnx.load_model_from_string(head)
    widths = _width(lower.graph.output, "features"), _width(upper.graph.input, "features")
    if widths[0] != widths[1]:
        raise ValueError(f"expected a backbone with an output `features` of width {widths[1]}; found {widths[0]}")
    _match_versions(upper, lower)
    keep = {"rename_inputs": False, "rename_outputs": False}
    onnx_compose.add_prefix(lower, "backbone/", inplace=True, **keep)
    onnx_compose.add_prefix(upper, "head/", inplace=True, **keep)
    model = onnx_compose.merge_models(
        lower,
        upper,
        io_map=[("features", "features")],
        outputs=["features", "probabilities"],
        name="model",
        doc_string="",
        producer_name="graft",
        producer_version="",
    )
    model.graph.output.reverse()
    return serialise(model)


def grow_head(head: bytes, changes: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]]) -> bytes:
    """A head with one class more: the named constants are changed, `probabilities` is one wider, all else stays.

    Raises:
        ValueError: the graph has no constant of that name.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(head)
    places = {tensor.name: index for index, tensor in enumerate(model.graph.initializer)}
    for name, change in changes.items():
        if name not in places:
            raise ValueError(f"expected a head with a constant {name!r}; found {sorted(places)}")
        tensor = model.graph.initializer[places[name]]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), name))
    model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value += 1
    return serialise(model)


def constants(head: bytes) -> dict[str, NDArray[Any]]:
    """A head's constants by name, as they stand in the graph."""
    import onnx
    from onnx import numpy_helper

    stored = onnx.load_model_from_string(head).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}


def serialise(model: Any) -> bytes:
    """Equal models give equal bytes."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _width(values: Any, name: str) -> int | None:
    for value in values:
        if value.name == name:
            return int(value.type.tensor_type.shape.dim[-1].dim_value)
    return None


def _match_versions(head: Any, backbone: Any) -> None:
    """Gives the head the backbone's IR version and opset: merging wants them equal."""
    head.ir_version = backbone.ir_version
    for wanted in backbone.opset_import:
        if wanted.domain in ("", "ai.onnx"):
            if wanted.version < MIN_OPSET:
                raise ValueError(
                    f"expected a backbone of opset {MIN_OPSET} or later; found {wanted.version}; export it again"
                )
            head.opset_import[0].version = wanted.version
