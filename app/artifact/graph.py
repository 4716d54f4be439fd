"""ONNX without torch: a head made from its weights, put on an exported backbone, and a check of graphs from outside.

A job only attaches its head (a few milliseconds); the backbone's graph is exported once per digest and never rewritten.
Everything is bytes in, bytes out, and equal input gives equal bytes, so that digests name graphs.

Shape legend: N images, D features, C classes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.errors import BadRequest

# What torch's exporter writes and onnxruntime 1.23 reads. Gemm and Softmax have not changed since opset 13, so a head
# can take the opset of whatever backbone it is put on.
OPSET = 18
IR_VERSION = 10
MIN_OPSET = 13

# A protobuf message ends at 2 GiB.
MAX_IMPORT_BYTES = (1 << 31) - 1
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def fold(
    weight_CD: ArrayLike, bias_C: ArrayLike, temperature: float, mean_D: ArrayLike | None, scale_D: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Puts standardisation and temperature into the map: `(W ((x - mean) / scale) + b) / T` as one `W' x + b'`.

    Computed in float64: `b - W mean/scale` cancels where a feature's mean is many times its scale.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D], or None for 0
        scale_D: [D], or None for 1
        result: [C, D], [C]

    Raises:
        ValueError: shapes that do not fit, a number that is not finite, or a scale or temperature that is not positive.
    """
    weight = np.asarray(weight_CD, dtype=np.float64)
    bias = np.asarray(bias_C, dtype=np.float64)
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.size:
        raise ValueError(f"expected weights [C, D] and bias [C]; found {weight.shape} and {bias.shape}")
    num_features = weight.shape[1]
    mean = np.zeros(num_features) if mean_D is None else np.asarray(mean_D, dtype=np.float64)
    scale = np.ones(num_features) if scale_D is None else np.asarray(scale_D, dtype=np.float64)
    if mean.shape != (num_features,) or scale.shape != (num_features,):
        raise ValueError(f"expected mean and scale [{num_features}]; found {mean.shape} and {scale.shape}")
    if not (scale > 0).all() or not temperature > 0:
        raise ValueError("expected positive scales and temperature; give 1 for a feature that does not vary")
    if not all(np.isfinite(array).all() for array in (weight, bias, mean, scale, temperature)):
        raise ValueError("expected finite numbers in the head; found NaN or infinity")
    with np.errstate(over="ignore"):
        scaled = weight / scale
        folded_CD = (scaled / temperature).astype(np.float32)
        folded_C = ((bias - scaled @ mean) / temperature).astype(np.float32)
    if not (np.isfinite(folded_CD).all() and np.isfinite(folded_C).all()):
        raise ValueError("expected a head that fits float32; found an overflow; are scales or temperature near zero?")
    return folded_CD, folded_C


def head_graph(
    weight_CD: ArrayLike,
    bias_C: ArrayLike,
    temperature: float = 1.0,
    mean_D: ArrayLike | None = None,
    scale_D: ArrayLike | None = None,
) -> bytes:
    """The classification head as an ONNX model: `features` [N, D] -> `probabilities` [N, C], one Gemm and one Softmax.

    There is no `logits` output: the logarithm of a probability is the calibrated logit up to one constant per image,
    and a second output would be a second contract.

    Shape:
        weight_CD: [C, D]
        bias_C: [C]
        mean_D: [D]
        scale_D: [D]

    Raises:
        ValueError: as in `fold`.
    """
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = fold(weight_CD, bias_C, temperature, mean_D, scale_D)
    num_classes, num_features = weight.shape
    graph = helper.make_graph(
        [
            # [D, C] is the layout that onnxruntime multiplies by; transB would make it transpose at load.
            helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"], name="linear"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=-1),
        ],
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", num_features])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", num_classes])],
        [
            numpy_helper.from_array(np.ascontiguousarray(weight.T), "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(
        graph, producer_name="graft", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return _serialise(model)


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
    return _serialise(model)


def check_importable(path: Path, max_bytes: int = MAX_IMPORT_BYTES) -> None:
    """Refuses a graph from outside that needs more than its own file and standard operators.

    Reads the file whole; open a stranger's file in a child with limits.

    Raises:
        BadRequest: with code model_too_large, model_unreadable, model_external_data or model_custom_operators.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    size_bytes = path.stat().st_size
    if size_bytes > max_bytes:
        raise BadRequest(
            f"expected an ONNX file of at most {max_bytes} bytes; found {size_bytes}; send a smaller model",
            code="model_too_large",
        )
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as error:
        raise BadRequest(
            f"expected an ONNX model; found {size_bytes} bytes that do not parse ({error}); export it again",
            code="model_unreadable",
        ) from error
    if not model.graph.node:
        raise BadRequest(
            "expected an ONNX model with operators; found an empty graph; export it again", code="model_unreadable"
        )
    external = sorted({tensor.name or "unnamed" for tensor in _tensors(model) if _is_external(tensor)})
    if external:
        raise BadRequest(
            f"expected all weights inside the file; found external data for {', '.join(external[:5])} "
            f"({len(external)} tensors); export with external data off",
            code="model_external_data",
        )
    local = {(function.domain, function.name) for function in model.functions}
    foreign = sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in _nodes(model)
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in local
        }
    )
    if foreign:
        raise BadRequest(
            f"expected operators of ONNX itself only; found {', '.join(foreign[:5])}; export without custom operators",
            code="model_custom_operators",
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadRequest(
            f"expected a valid ONNX model; found {error}; export it again", code="model_unreadable"
        ) from error


def _serialise(model: Any) -> bytes:
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


def _graphs(model: Any) -> Iterator[Any]:
    """Graphs and functions of the model, those inside If, Loop and Scan included."""
    waiting = [model.graph, *model.functions, *(info.algorithm for info in model.training_info)]
    waiting += [info.initialization for info in model.training_info]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting.extend(attribute.graphs)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        # A function has no initialisers of its own.
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield sparse.values
            yield sparse.indices
        for node in graph.node:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                sparses = [*attribute.sparse_tensors]
                if attribute.HasField("sparse_tensor"):
                    sparses.append(attribute.sparse_tensor)
                for sparse in sparses:
                    yield sparse.values
                    yield sparse.indices


def _is_external(tensor: Any) -> bool:
    from onnx import TensorProto

    return bool(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data)
