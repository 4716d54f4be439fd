"""Where backbones run: on the processor, or on a GPU where onnxruntime's GPU package finds one. Heads are small.

cuDNN chooses an algorithm for every new shape: by trying them all (seconds), or by rules of thumb (`HEURISTIC`).
Batches are filled up to one of a few sizes, so that it chooses while a model is loaded, and never during a call.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Device = Literal["cpu", "cuda"]
CPU: Device = "cpu"
CUDA: Device = "cuda"
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 keeps 10 bits of a number, with which scores would not be those that a version's sample has.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
# Sizes of batches on a GPU; the largest is runtime.BATCH_SIZE.
SIZES = (1, 2, 4, 8, 16)


def chosen(wanted: str, available: Sequence[str] | None = None) -> Device:
    """The device for a setting of `auto`, `cpu` or `cuda`.

    Args:
        wanted: the setting.
        available: providers that this onnxruntime has; by default it is asked.

    Raises:
        ValueError: a GPU is wanted, and onnxruntime has no provider for one.
    """
    if wanted == CPU:
        return CPU
    if available is None:
        import onnxruntime

        available = onnxruntime.get_available_providers()
    if PROVIDERS[CUDA] in available:
        return CUDA
    if wanted == CUDA:
        raise ValueError(
            f"expected onnxruntime with {PROVIDERS[CUDA]}; found {', '.join(available)}; install the extra serve-gpu "
            "as docs/serving.md says, or set GRAFT_SERVE_DEVICE=cpu"
        )
    return CPU


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
