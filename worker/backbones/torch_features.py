"""Extraction with torch: what a GPU does where a CPU runs the exported graph in onnxruntime.

bf16 autocast, channels_last, pinned memory, copies that overlap with compute, and one compiled shape when there are
enough images to pay for compiling (tens of seconds, about 5,000 images). The features agree with the graph's within
the precision class; a job uses one class for all of its features.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.backbones import networks
from worker.backbones.export import FromPixels
from worker.backbones.prepared import Prepared

COMPILE_FROM_IMAGES = 5_000
BATCH_SIZES = {"cuda": 256, "cpu": 16}
PRECISIONS = ("fp32", "bf16")


class TorchExtractor:
    """One prepared backbone on one device.

    Args:
        prepared: what to run.
        device: `cuda`, `cuda:1`, `cpu`.
        precision: class of PRECISIONS; part of every feature's key.
    """

    def __init__(self, prepared: Prepared, device: str, precision: str) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"expected a precision of {PRECISIONS}, found {precision!r}")
        self.device = torch.device(device)
        self.precision = precision
        network = FromPixels(networks.restore(prepared), prepared.preprocess, torch.channels_last)
        network = network.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)
        self.is_compiled = False
        self.batch_size = BATCH_SIZES[self.device.type]
        self._network: Callable[[Tensor], Tensor] = network
        self._largest_batch = 0

    def expect(self, num_images: int) -> None:
        """Says how many will come, which decides about compiling; where nobody says it, nothing is compiled."""
        if self.device.type == "cuda" and num_images > COMPILE_FROM_IMAGES and not self.is_compiled:
            self._network = torch.compile(self._network)
            self.is_compiled = True

    def __call__(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One batch, waited for.

        Shape:
            images_NHWC: [N, H, W, 3]
            result: [N, D]
        """
        return next(self.stream([images_NHWC]))

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Batches in, features out, in order. The device works on one batch while the caller prepares the next."""
        pending: tuple[Tensor, torch.cuda.Event | None] | None = None
        for batch in batches:
            started = self._start(batch)
            if pending is not None:
                yield _finish(*pending)
            pending = started
        if pending is not None:
            yield _finish(*pending)

    def _start(self, images_NHWC: NDArray[np.uint8]) -> tuple[Tensor, torch.cuda.Event | None]:
        images = torch.from_numpy(np.ascontiguousarray(images_NHWC))
        on_gpu = self.device.type == "cuda"
        num_images = images.shape[0]
        if self.is_compiled:
            images = self._padded(images)
        if on_gpu:
            images = images.pin_memory().to(self.device, non_blocking=True)
        with torch.inference_mode(), self._autocast():
            features = self._network(images)[:num_images].float()
        if not on_gpu:
            return features, None
        # Copied into pinned memory behind the compute; the event says when it is there.
        host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        host.copy_(features, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return host, done

    def _padded(self, images: Tensor) -> Tensor:
        """The last, smaller batch filled up to the first one's size, so that only one shape is compiled."""
        self._largest_batch = max(self._largest_batch, images.shape[0])
        missing = self._largest_batch - images.shape[0]
        return images if missing == 0 else torch.cat([images, images.new_zeros(missing, *images.shape[1:])])

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


def _finish(features: Tensor, done: torch.cuda.Event | None) -> NDArray[np.float32]:
    if done is not None:
        done.synchronize()
    result: NDArray[np.float32] = features.numpy()
    return result
