"""Alignments as ONNX graphs, between a backbone's and a head's: `features` [N, D] -> `aligned` [N, E]. No torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.artifact.graph import IR_VERSION, OPSET, serialise
from app.artifact.preprocess import Preprocess
from app.artifact.spec import File

FEATURES, ALIGNED = "features", "aligned"
GRAPH, ARRAYS = "alignment.onnx", "alignment.safetensors"
FILES = (GRAPH, ARRAYS)


class MovingBackbone(BaseModel):
    """The backbone of incoming features where it is not the head's: its shared graph, and what its images look like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str
    graph: File
    preprocess: Preprocess


def affine(alpha: NDArray[Any], offset_E: NDArray[Any]) -> bytes:
    """`features * alpha + offset`, or `features @ alpha + offset` for a full matrix.

    Shape:
        alpha: [D] or [D, E]
        offset_E: [E]

    Raises:
        ValueError: shapes that do not fit, or numbers that float32 does not hold.
    """
    from onnx import TensorProto, helper, numpy_helper

    if alpha.ndim not in (1, 2) or offset_E.shape != alpha.shape[-1:]:
        raise ValueError(f"expected alpha [D] or [D, E] and offset [E]; found {alpha.shape} and {offset_E.shape}")
    with np.errstate(over="ignore"):
        constants = {"alpha": alpha.astype(np.float32), "offset": offset_E.astype(np.float32)}
    if not all(np.isfinite(array).all() for array in constants.values()):
        raise ValueError("expected finite numbers in the alignment; found NaN or infinity")
    if alpha.ndim == 1:
        nodes = [
            helper.make_node("Mul", [FEATURES, "alpha"], ["scaled"], name="scale"),
            helper.make_node("Add", ["scaled", "offset"], [ALIGNED], name="shift"),
        ]
    else:
        nodes = [helper.make_node("Gemm", [FEATURES, "alpha", "offset"], [ALIGNED], name="linear")]
    graph = helper.make_graph(
        nodes,
        "alignment",
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", alpha.shape[0]])],
        [helper.make_tensor_value_info(ALIGNED, TensorProto.FLOAT, ["N", alpha.shape[-1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return serialise(
        helper.make_model(
            graph, producer_name="graft", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
    )
