"""Exports networks to ONNX and proves the files against torch.

A whole backbone takes uint8 images and normalises inside. Where a network has a proven split, prefix and suffix are
exported apart and joined, so a fine-tuned last stage exports only itself. Every file is one self-contained graph
without traces of the machine that wrote it: equal weights give equal bytes.
"""

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import compose
from torch import Tensor, nn
from torch.export import Dim
from tqdm import tqdm

from app.artifact.preprocess import Preprocess
from app.errors import JobFailure
from worker.backbones.probes import BATCHES, probe_images

IMAGES, ACTIVATIONS, FEATURES = "images", "activations", "features"
# Graph and torch order their sums differently; measured up to 2e-5 on features of magnitude 1 to 10.
TOLERANCE = 1e-3
OPSET = 18


class FromPixels(nn.Module):
    """uint8 images -> normalised float images -> the network.

    Shape:
        images_NHWC: [N, H, W, 3], 0 to 255
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, preprocess: Preprocess, memory_format: torch.memory_format = torch.contiguous_format
    ) -> None:
        super().__init__()
        self.network = network
        self.memory_format = memory_format
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images_NHWC: Tensor) -> Tensor:
        """(x / 255 - mean) / std as one product and one sum."""
        # A permuted image is channels_last; left so, the exporter writes strides out as index arithmetic.
        images = images_NHWC.permute(0, 3, 1, 2).to(self.scale.dtype).contiguous(memory_format=self.memory_format)
        value: Tensor = self.network(images * self.scale + self.shift)
        return value


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a graph's output lies from torch's, over all proven batches.

    Args:
        max_abs: largest difference.
        max_rel: the same over the largest magnitude of torch's output.
        num_images: that were compared.
    """

    max_abs: float
    max_rel: float
    num_images: int


def export_backbone(features: nn.Module, preprocess: Preprocess, path: Path) -> Parity:
    """Writes `images` uint8 [N, H, W, 3] -> `features` [N, D] and proves it.

    Raises:
        JobFailure: `internal`, when graph and torch differ beyond TOLERANCE (relative to the largest feature).
    """
    network = FromPixels(features, preprocess).eval()
    _write(network, torch.zeros(2, preprocess.height, preprocess.width, 3, dtype=torch.uint8), IMAGES, FEATURES, path)
    return prove(network, path, probe_images(preprocess))


def export_prefix(prefix: nn.Module, preprocess: Preprocess, path: Path) -> Parity:
    """Writes `images` -> `activations` and proves it."""
    network = FromPixels(prefix, preprocess).eval()
    example = torch.zeros(2, preprocess.height, preprocess.width, 3, dtype=torch.uint8)
    _write(network, example, IMAGES, ACTIVATIONS, path)
    return prove(network, path, probe_images(preprocess))


def export_suffix(suffix: nn.Module, activation_shape: Sequence[int], path: Path) -> Parity:
    """Writes `activations` [N, *activation_shape] -> `features` and proves it on random activations."""
    _write(suffix.eval(), torch.zeros(2, *activation_shape), ACTIVATIONS, FEATURES, path)
    generator = np.random.default_rng(0)
    shape = (max(BATCHES), *activation_shape)
    return prove(suffix, path, generator.standard_normal(shape, dtype=np.float32))


def join(prefix_path: Path, suffix_path: Path, path: Path) -> None:
    """Writes `images` -> `features` from a prefix's and a suffix's graph; onnx's checker reads the result."""
    prefix = compose.add_prefix(onnx.load(prefix_path), "prefix/", rename_inputs=False, rename_outputs=False)
    suffix = compose.add_prefix(onnx.load(suffix_path), "suffix/", rename_inputs=False, rename_outputs=False)
    joined = compose.merge_models(prefix, suffix, io_map=[(ACTIVATIONS, ACTIVATIONS)])
    _save(joined, path)


def prove(network: nn.Module, path: Path, samples: NDArray[np.uint8] | NDArray[np.float32]) -> Parity:
    """Compares a graph with its network at several batch sizes.

    Args:
        network: what was exported, or what a joined graph stands for.
        path: of the graph.
        samples: inputs; the first n of them make the batch of n.

    Raises:
        JobFailure: `internal`, when the two differ beyond TOLERANCE.
    """
    session = open_session(path)
    name = session.get_inputs()[0].name
    max_abs, largest = 0.0, 0.0
    for size in BATCHES:
        batch = samples[:size]
        with torch.no_grad():
            wanted = network(torch.from_numpy(batch)).numpy()
        got = session.run(None, {name: batch})[0]
        if got.shape != wanted.shape:
            raise JobFailure("internal", f"expected {wanted.shape} from the exported graph, found {got.shape}")
        max_abs = max(max_abs, float(np.abs(got - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
    parity = Parity(max_abs, max_abs / max(largest, 1e-6), sum(BATCHES))
    if not parity.max_rel <= TOLERANCE:
        raise JobFailure(
            "internal",
            f"expected the exported graph within {TOLERANCE:g} of torch, found {parity.max_rel:.3g} "
            f"({max_abs:.3g} of {largest:.3g}); this network cannot be served",
        )
    return parity


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A CPU session over one file, silent below errors."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _write(network: nn.Module, example: Tensor, input_name: str, output_name: str, path: Path) -> None:
    write(network, (example,), ({0: Dim("batch")},), [input_name], output_name, path)


def write(
    network: nn.Module,
    examples: tuple[Tensor, ...],
    dynamic_shapes: tuple[dict[int, Any], ...],
    input_names: list[str],
    output_name: str,
    path: Path,
) -> None:
    """One network as one checked file; the axes named in `dynamic_shapes` are free."""
    # The exporter makes progress bars that nobody sees, and the first one a lock between processes: a semaphore of the
    # system, which a killed process leaves behind, and of which the log tells when the worker ends. Threads are enough.
    tqdm.set_lock(threading.RLock())
    with _quiet(), _out_of_place(network):
        program = torch.onnx.export(
            network,
            examples,
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            input_names=input_names,
            output_names=[output_name],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _save(program.model_proto, path)


def _save(model: onnx.ModelProto, path: Path) -> None:
    """One checked file; what the exporter noted about source lines and paths is left out."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    content = model.SerializeToString(deterministic=True)
    path.write_bytes(content)
    onnx.checker.check_model(content)


@contextmanager
def _out_of_place(network: nn.Module) -> Iterator[None]:
    """Activations write to new memory while the exporter looks.

    It takes an in-place ReLU6 apart into comparisons of symbolic shapes: half of its time on EfficientNet-Lite.
    """
    inside = [module for module in network.modules() if getattr(module, "inplace", False) is True]
    for module in inside:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in inside:
            module.inplace = True  # type: ignore[assignment]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's own notices off our log; its errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
