"""Exported graphs in onnxruntime: one session per graph, a backbone's session shared by every head on it.

Shape legend: N images, H x W pixels, D features, C classes.
"""

import itertools
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import cores
from app.artifact.precisions import FLOAT, FP16, Precision
from app.artifact.spec import BundleError
from app.serving import memory, providers
from app.serving.providers import CPU, PROVIDERS, Device

BATCH_SIZE = 16
# A backbone, and no head: those are many, and what each holds is little.
LARGE_BYTES = 2**20
_numbers = itertools.count()

# Measured as resident memory on the four starter backbones (graphs of 9 to 19 MB) after batches of every size: weights
# stand there twice, as read and as packed for the kernels, and the arena keeps 256 to 294 bytes per input pixel of a
# batch. They held 316, 293, 263 and 248 MB, and count as 335, 286, 247 and 238; after batches of one and two images, as
# a session for single images runs them, two of them held 50 and 44 MB, and count as 65 and 76. What counts is how many
# images were in it at once: after two and three batches of 16 side by side EfficientNet-Lite0 held 364 and 468 MB, and
# counts as 467 and 687; after four and eight of four images 177 and 271, and counts as 247 and 467. A hundred sessions
# of a head of 10 KB take 200 KB each.
SESSION_BYTES = 190 * 2**10
WEIGHT_COPIES = 2
ACTIVATION_BYTES_PER_PIXEL = 274
# Of a graph in half precision, which a processor computes in float32: its weights become twice their file before they
# are packed, and casts keep values of their own. The same four (files of 4 to 10 MB) held 451, 389, 349 and 340 MB, and
# count as 456, 389, 336 and 322; by the figures above it would be 229 to 316.
HALF_WEIGHT_COPIES = 6
HALF_ACTIVATION_BYTES_PER_PIXEL = 368
# What an arena holds and does not need goes back to the system at the end of a run with this option, and the next run
# gets it anew; that took no more of the processor (EfficientNet-Lite0, 10.4 ms an image in batches of 16).
TRIMMING = ("memory.enable_memory_arena_shrinkage", "cpu:0")


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a model says of some images.

    Shape:
        probabilities: [N, C]
        features: [N, D]
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


def bytes_per_pixel(precision: Precision, device: Device) -> int:
    """Of memory that an image takes while a graph of that precision runs, for each of its pixels."""
    is_half = precision == FP16 and device == CPU
    return HALF_ACTIVATION_BYTES_PER_PIXEL if is_half else ACTIVATION_BYTES_PER_PIXEL


class Session:
    """One ONNX graph with one input, loaded; safe to run from several threads.

    Args:
        source: the graph's file, or its bytes.
        threads: within one run; by default every core that the process may use. A head wants 1.
        device: where it runs.
        bound: whether batches are filled up and bound to memory ahead, as a GPU wants them; by default there alone.
        precision: of the graph, for the memory that it takes.

    Raises:
        BundleError: onnxruntime cannot load the graph, or not there.
    """

    def __init__(
        self,
        source: Path | bytes,
        threads: int | None = None,
        device: Device = CPU,
        bound: bool | None = None,
        precision: Precision = FLOAT,
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cores.usable()
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # From the second run of a shape on, a pattern takes one piece of memory for all of it, beside the pieces that
        # the first run took, and an arena gives nothing back: EfficientNet-Lite2 held 460 MB instead of 301. Without,
        # a processor is no slower (2 % at most: batches of 1, 5 and 16, three backbones), and says the same bit by bit.
        options.enable_mem_pattern = device != CPU
        # A thread that spins while it waits takes the core from those that decode: with other work on 2 cores, batch 16
        # of EfficientNet-Lite0 took 0.20 instead of 0.24 s of CPU time, and a single image 9 instead of 13 ms.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        unusable: tuple[type[Exception], ...] = (FileNotFoundError, *failures())
        try:
            # Before it is opened: a copy that somebody drops meanwhile stays readable for whoever has it open.
            self.graph_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
            session = ort.InferenceSession(
                source if isinstance(source, bytes) else str(source), options, providers=providers.of(device)
            )
        except unusable as error:
            # Where the file lies is nothing for whoever asks.
            said = str(error) if isinstance(source, bytes) else str(error).replace(str(source), source.name)
            raise BundleError(f"expected a graph that onnxruntime loads; found {said}; publish it again") from error
        # It falls back by itself where a library of the GPU's is missing, and says so in its log alone.
        if PROVIDERS[device] not in session.get_providers():
            raise BundleError(
                f"expected a session on {device}; found {', '.join(session.get_providers())}; install the libraries "
                "that onnxruntime needs for it"
            )
        self.device, self._precision = device, precision
        self._bound = device != CPU if bound is None else bound
        inputs = session.get_inputs()
        if len(inputs) != 1:
            raise BundleError(
                f"expected a graph with one input; found {[item.name for item in inputs]}; export it again"
            )
        self._session: Any = session
        # Tells it from every other session of the process, one of the same graph included.
        self.number = next(_numbers)
        self.input_name: str = inputs[0].name
        self.input_shape: tuple[int | str | None, ...] = tuple(inputs[0].shape)
        self.output_names: tuple[str, ...] = tuple(item.name for item in session.get_outputs())
        self._lock = threading.Lock()
        # Images in runs now, and the most that there were at once since the arena was trimmed.
        self._num_running = self._num_held = 0
        self._num_runs = self._num_trims = 0

    @property
    def size_bytes(self) -> int:
        """Estimate of the memory that the session holds, by the most images at once: an arena gives nothing back."""
        return self._size(self._num_held)

    def size_with(self, number: int) -> int:
        """The same once so many images more are run beside those that run now."""
        with self._lock:
            return self._size(max(self._num_held, self._num_running + min(number, BATCH_SIZE)))

    def trim(self) -> None:
        """Gives back what the arena does not need, as soon as runs end: those to come, one for each that is under way.

        Nothing is given back on a GPU.
        """
        with self._lock:
            self._num_trims = self._num_runs + 1

    def _size(self, number: int) -> int:
        fixed = [length for length in self.input_shape[1:3] if isinstance(length, int)]
        pixels = math.prod(fixed) if len(self.input_shape) == 4 else 0
        copies = HALF_WEIGHT_COPIES if self._precision == FP16 and self.device == CPU else WEIGHT_COPIES
        activations = bytes_per_pixel(self._precision, self.device) * number * pixels
        return SESSION_BYTES + copies * self.graph_bytes + activations

    def run(self, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        """All outputs, in the graph's order, computed in chunks of 16 so that memory does not grow with the batch.

        Shape:
            batch: [N, ...], N >= 1

        Raises:
            ValueError: the array does not have the input's shape.
        """
        session = self._session
        if session is None:
            raise RuntimeError("expected an open session; found it closed; take a lease from the pool")
        fixed = self.input_shape[1:]
        if (
            batch.ndim != len(self.input_shape)
            or not len(batch)
            or any(isinstance(want, int) and want != have for want, have in zip(fixed, batch.shape[1:], strict=True))
        ):
            raise ValueError(f"expected {self.input_name} of shape {self.input_shape}; found {batch.shape}")
        chunks = [self._run(session, batch[start : start + BATCH_SIZE]) for start in range(0, len(batch), BATCH_SIZE)]
        return chunks[0] if len(chunks) == 1 else [np.concatenate(parts) for parts in zip(*chunks, strict=True)]

    def _run(self, session: Any, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        with self._lock:
            self._num_runs += 1
            self._num_running += len(batch)
            self._num_held = max(self._num_held, self._num_running)
            is_trim = self._num_trims > 0 and self.device == CPU and not self._bound
            self._num_trims = max(0, self._num_trims - 1)
        try:
            return self._run_bound(session, batch) if self._bound else self._run_plain(session, batch, is_trim)
        finally:
            with self._lock:
                if is_trim:
                    # Those beside it may hold what is in no piece of its own, so this one counts too.
                    self._num_held = self._num_running
                self._num_runs -= 1
                self._num_running -= len(batch)

    def _run_plain(self, session: Any, batch: NDArray[Any], is_trim: bool) -> list[NDArray[np.float32]]:
        options = None
        if is_trim:
            import onnxruntime as ort

            options = ort.RunOptions()
            options.add_run_config_entry(*TRIMMING)
        found: list[NDArray[np.float32]] = session.run(None, {self.input_name: np.ascontiguousarray(batch)}, options)
        return found

    def _run_bound(self, session: Any, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        """One of few sizes, copied to the device once and back once."""
        binding = session.io_binding()
        binding.bind_cpu_input(self.input_name, providers.filled(batch))
        for name in self.output_names:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        return [found[: len(batch)] for found in binding.copy_outputs_to_cpu()]

    def close(self) -> None:
        """Gives the memory back; a run in progress keeps its own hold until it ends."""
        self._session = None
        if self.graph_bytes >= LARGE_BYTES:
            memory.trim()


@dataclass(frozen=True, slots=True)
class Runtime:
    """A backbone's session and a head's, together one model; an alignment's between them for inputs of a domain."""

    backbone: Session
    head: Session
    alignment: Session | None = None

    def run(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        """Images -> probabilities and features, which are those that the head saw: aligned ones where there are such.

        Shape:
            images_NHWC: [N, H, W, 3] uint8, N >= 1

        Raises:
            ValueError: images of another size or type.
        """
        if images_NHWC.dtype != np.uint8:
            raise ValueError(f"expected images uint8 [N, H, W, 3]; found {images_NHWC.dtype} {images_NHWC.shape}")
        features = self.backbone.run(images_NHWC)[self.backbone.output_names.index("features")]
        if self.alignment is not None:
            features = self.alignment.run(features)[0]
        probabilities = self.head.run(features)[self.head.output_names.index("probabilities")]
        return Outputs(probabilities=probabilities, features=features)


def failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises when a graph cannot be loaded or run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented,
        state.NoSuchFile, state.RuntimeException,
    )  # fmt: skip
