"""What is served, as its published files alone have it: the graph that images meet, and a head that tells its logits.

Torch-free. Shape legend: N images, D features, C classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.artifact.head_graph import PROBABILITIES
from app.artifact.preprocess import Preprocess
from app.serving.runtime import Session

Float = NDArray[np.float32]


@dataclass(frozen=True)
class ServedGraph:
    """A version whose answers are asked about.

    Args:
        graph: ONNX file, images -> features.
        shape: of its input.
        head: see `open_head`.
    """

    graph: Path
    shape: Preprocess
    head: Session

    def answers(self, features_ND: Float) -> tuple[Float, Float]:
        """Probabilities, and the logits under them, which the temperature has divided already.

        Shape:
            features_ND: [N, D]
            results: [N, C]
        """
        probabilities, logits = self.head.run(features_ND)
        return probabilities, logits


def open_head(head: Path) -> Session:
    """A published head with one output more: what its last step, a softmax, is given.

    Every kind of head ends that way (`app.artifact.heads`), and the logits are no part of what is published.

    Raises:
        ValueError: the graph ends otherwise.
    """
    import onnx

    model = onnx.load_model_from_string(head.read_bytes())
    last = next((node for node in model.graph.node if PROBABILITIES in node.output), None)
    if last is None or last.op_type != "Softmax":
        found = "no such output" if last is None else f"a {last.op_type}"
        raise ValueError(f"expected a head whose {PROBABILITIES} come from a Softmax; found {found}; publish it again")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(last.input[0]))
    return Session(model.SerializeToString(), 1)
