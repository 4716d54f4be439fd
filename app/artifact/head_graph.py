"""What heads' graphs are made of: weights folded into one map, nodes that heads share, the whole model. No torch.

Shape legend: N images, D features, C classes.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.artifact.graph import IR_VERSION, OPSET, serialise

FEATURES, PROBABILITIES = "features", "probabilities"


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


def unit_nodes() -> list[Any]:
    """`features` -> `unit`: centred by `mean`, of length 1."""
    from onnx import helper

    return [
        helper.make_node("Sub", [FEATURES, "mean"], ["centred"], name="centre"),
        # The one normalisation that every opset since 1 has; it leaves a vector of zeros as it is.
        helper.make_node("LpNormalization", ["centred"], ["unit"], name="normalise", axis=-1, p=2),
    ]


def softmax_of_gemm(
    nodes: list[Any],
    given: str,
    weight_CD: NDArray[np.float32],
    bias_C: NDArray[np.float32],
    constants: dict[str, NDArray[np.float32]],
    num_features: int | None = None,
) -> bytes:
    """The graph that ends with `softmax(given @ weight.T + bias)`; `given` is as wide as the features by default."""
    from onnx import helper

    # [D, C] is the layout that onnxruntime multiplies by; transB would make it transpose at load.
    constants = {"weight": np.ascontiguousarray(weight_CD.T), "bias": bias_C, **constants}
    nodes = [
        *nodes,
        helper.make_node("Gemm", [given, "weight", "bias"], ["logits"], name="linear"),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES], name="softmax", axis=-1),
    ]
    return model(nodes, constants, num_features=num_features or weight_CD.shape[1], num_classes=len(bias_C))


def model(nodes: list[Any], constants: dict[str, NDArray[Any]], *, num_features: int, num_classes: int) -> bytes:
    """A head from its nodes and constants."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", num_features])],
        [helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", num_classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return serialise(
        helper.make_model(
            graph, producer_name="graft", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
    )
