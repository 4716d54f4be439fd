"""Graphs from outside: what they may consist of, decided from the file alone. Nothing is run here.

Allowed is what image networks and heads are made of: operators of ONNX itself that compute, whose results have sizes
that follow from the sizes of their inputs. Then running a graph once on each number of images shows what every later
run costs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.artifact.graph import MIN_OPSET
from app.errors import BadRequest

# A protobuf message ends at 2 GiB.
MAX_BYTES = (1 << 31) - 1
MAX_NODES = 100_000
DOMAINS = frozenset({"", "ai.onnx"})
# Not among them: control flow and functions (graphs inside of graphs), randomness, sequences, optional values, text,
# image decoding, training, and whatever gives as many results as its input's values say (NonZero, Unique, Compress).
_COMPUTING = """
    Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Cast CastLike Ceil Celu Clip Col2Im Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose
    Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not
    OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size
    Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Where Xor
    """
OPERATORS = frozenset(_COMPUTING.split())
# Every input whose value says what shape a result has: it may depend on the sizes of images, not on what is seen in
# them. Those that only cut, count or arrange are among them: a result's shape can be asked for, and is a number again.
SIZES = {
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
} | {name: (1,) for name in sorted(OPERATORS) if name.startswith("Reduce")}


def check_importable(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Refuses a graph from outside that needs more than its own file and plain operators, or has broken numbers.

    Reads the file whole; open a stranger's file in a child with limits.

    Raises:
        BadRequest: with code model_too_large, model_unreadable, model_external_data, model_custom_operators or
            weights_not_finite.
    """
    model = _read(path, max_bytes)
    _check_data(model)
    _check_operators(model)
    _check_valid(model)
    _check_sizes(model.graph)
    _check_finite(path.name, model)


def _read(path: Path, max_bytes: int) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

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
    if len(model.graph.node) > MAX_NODES:
        raise BadRequest(
            f"expected at most {MAX_NODES} operators; found {len(model.graph.node)}; send a smaller model",
            code="model_too_large",
        )
    return model


def _check_data(model: Any) -> None:
    external = sorted({tensor.name or "unnamed" for tensor in _tensors(model) if _is_external(tensor)})
    if external:
        raise BadRequest(
            f"expected all weights inside the file; found external data for {', '.join(external[:5])} "
            f"({len(external)} tensors); export with external data off",
            code="model_external_data",
        )


def _check_operators(model: Any) -> None:
    foreign = {_name(node) for node in _nodes(model) if node.domain not in DOMAINS or node.op_type not in OPERATORS}
    foreign |= {f"graphs inside of {_name(node)}" for node in _nodes(model) if any(_inside(node))}
    foreign |= {f"function {function.name}" for function in model.functions}
    if model.training_info:
        foreign.add("training")
    if foreign:
        raise BadRequest(
            f"expected operators of ONNX that compute, and no functions or control flow; found "
            f"{', '.join(sorted(foreign)[:5])}; export without custom operators, with functions inlined",
            code="model_custom_operators",
        )


def _check_valid(model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadRequest(
            f"expected a valid ONNX model; found {error}; export it again", code="model_unreadable"
        ) from error
    versions = [item.version for item in model.opset_import if item.domain in DOMAINS]
    if not versions or min(versions) < MIN_OPSET or model.graph.sparse_initializer:
        raise BadRequest(
            f"expected a model of opset {MIN_OPSET} or later without sparse weights; found opset {versions}; export it "
            "again",
            code="model_unreadable",
        )


def _check_sizes(graph: Any) -> None:
    """Follows what depends on pixels or on chance through the graph, whose nodes the checker has found in order.

    Shapes do not: no input that decides on one does.
    """
    # Older files list their weights among the inputs.
    seen = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        bound = [node.input[place] for place in SIZES.get(node.op_type, ()) if place < len(node.input)]
        if seen & set(bound):
            raise BadRequest(
                f"expected results whose sizes follow from the images' size; found {_name(node)} {node.name!r} with "
                "one that depends on pixels or on chance; export it with fixed sizes",
                code="model_custom_operators",
            )
        # Dropout as in training gives other numbers each time.
        if node.op_type == "Dropout" or (node.op_type not in ("Shape", "Size") and seen & set(node.input)):
            seen |= set(node.output)


def _check_finite(name: str, model: Any) -> None:
    from onnx import numpy_helper

    for tensor in _tensors(model):
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise BadRequest(
                f"expected weights that fill their shapes; found {tensor.name!r} of {list(tensor.dims)} that does not; "
                "export it again",
                code="model_unreadable",
            ) from error
        if array.dtype.kind in "OSUV":
            raise BadRequest(
                f"expected weights that are numbers; found {tensor.name!r} of {array.dtype}; export it again",
                code="model_unreadable",
            )
        # One infinite number alone is a bound or a filling, such as a padding before a maximum.
        broken = np.isnan(array).any() if array.size == 1 else not np.isfinite(array).all()
        if broken:
            raise BadRequest(
                f"expected finite weights in {name}; found NaN or infinity in {tensor.name!r}; export it again",
                code="weights_not_finite",
            )


def _name(node: Any) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)


def _inside(node: Any) -> Iterator[Any]:
    """Graphs among a node's attributes."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _graphs(model: Any) -> Iterator[Any]:
    """Graphs and functions of the model, those inside If, Loop and Scan included."""
    waiting = [model.graph, *model.functions, *(info.algorithm for info in model.training_info)]
    waiting += [info.initialization for info in model.training_info]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting.extend(_inside(node))


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
