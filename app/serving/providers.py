"""Where backbones run: on the processor, or on a GPU where onnxruntime's GPU package finds one. Heads are small.

cuDNN chooses an algorithm for every new shape: by trying them all (seconds), or by rules of thumb (`HEURISTIC`).
Batches are filled up to one of a few sizes, so that it chooses while a model is loaded, and never during a call.
"""

import logging
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Device = Literal["cpu", "cuda"]
CPU: Device = "cpu"
CUDA: Device = "cuda"
# Of which one can be installed: the extra serve-gpu brings the second.
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 keeps 10 bits of a number, with which scores would not be those that a version's sample has.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
# Sizes of batches on a GPU; the largest is runtime.BATCH_SIZE.
SIZES = (1, 2, 4, 8, 16)

log = logging.getLogger(__name__)


def chosen(wanted: str, available: Sequence[str] | None = None) -> Device:
    """The device for a setting of `auto`, `cpu` or `cuda`.

    Args:
        wanted: the setting.
        available: providers that this onnxruntime has; by default it is asked.

    Raises:
        ValueError: a GPU is wanted, and onnxruntime has no provider for one, or it does not start; or both of its
            packages are installed, so that nobody can say whose files are there.
    """
    if wanted == CPU:
        return CPU
    packages = [package for package in PACKAGES if _is_installed(package)]
    if len(packages) > 1:
        both = (
            f"expected one package of onnxruntime; found {' and '.join(packages)}, which have the same files; keep one "
            "of them as docs/serving.md says, or set GRAFT_SERVE_DEVICE=cpu"
        )
        if wanted == CUDA:
            raise ValueError(both)
        log.warning("%s", both)
    if available is None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
    if PROVIDERS[CUDA] in available:
        if starts(CUDA):
            return CUDA
        if wanted == CUDA:
            raise ValueError(
                f"expected {PROVIDERS[CUDA]} to start; found that it does not, for which onnxruntime's log says why; "
                "install the driver, CUDA and cuDNN as docs/serving.md says, or set GRAFT_SERVE_DEVICE=cpu"
            )
        log.warning("%s is installed and does not start here; predictions run on the processor", PROVIDERS[CUDA])
        return CPU
    if wanted == CUDA:
        raise ValueError(
            f"expected onnxruntime with {PROVIDERS[CUDA]}; found {', '.join(available)}; install the extra serve-gpu "
            "as docs/serving.md says, or set GRAFT_SERVE_DEVICE=cpu"
        )
    return CPU


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def starts(device: Device) -> bool:
    """Whether a session runs there: which providers a package has says nothing of the machine's driver and libraries.

    onnxruntime finds CUDA and cuDNN in pip's packages only once they have been loaded for it.
    """
    import onnxruntime
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "trial", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        if device == CUDA:
            onnxruntime.preload_dlls()
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=of(device))
        session.run(None, {"x": np.ones(1, np.float32)})
    # Whatever it is, the device is of no use; and what onnxruntime raises has no class of its own.
    except Exception as error:
        log.warning("%s: %s", PROVIDERS[device], error)
        return False
    return PROVIDERS[device] in session.get_providers()


def of(device: Device) -> list[str | tuple[str, dict[str, Any]]]:
    """Providers of a session, the preferred one first."""
    return [PROVIDERS[CPU]] if device == CPU else [(PROVIDERS[CUDA], dict(CUDA_OPTIONS)), PROVIDERS[CPU]]


def sizes(device: Device) -> tuple[int, ...]:
    """Batches that a session is to have run before it is ready."""
    return (1,) if device == CPU else SIZES


def filled(batch: NDArray[Any]) -> NDArray[Any]:
    """The batch, with zeros behind it up to the next of SIZES.

    Shape:
        batch: [N, ...], N at most the largest size
        result: [M, ...], M >= N

    Raises:
        ValueError: there is no such size.
    """
    size = next((size for size in SIZES if size >= len(batch)), None)
    if size is None:
        raise ValueError(f"expected a batch of at most {SIZES[-1]}; found {len(batch)}")
    if size == len(batch):
        return np.ascontiguousarray(batch)
    return np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])
