"""Features of a dataset's images: taken from the cache where they are known, extracted where they are missing.

The cache is content-addressed: project, bytes of the image, preprocessing, backbone, layer, view and precision. A
second job, or a child dataset with a few more images, extracts only what is new (`worker.backbones.feature_cache`).

Shape legend: N images, D features.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.artifact import decoding, preprocess
from app.artifact.preprocess import Preprocess
from app.errors import JobFailure
from worker.attempt.context import RunContext
from worker.backbones.extraction import Extraction
from worker.backbones.feature_cache import FeatureCache, Features, Space
from worker.backbones.prepared import Prepared
from worker.data.samples import Index, iter_images

BATCH_SIZE = 16
CHUNK_IMAGES = 2048
AHEAD_BATCHES = 3
ROUNDS = 4

T = TypeVar("T")
U = TypeVar("U")
Images = NDArray[np.uint8]
Extractor = Callable[[Images], Features]
View = Callable[[Image.Image, str], Image.Image]


@runtime_checkable
class Streamed(Protocol):
    """An extractor that works at one batch while the next one is decoded."""

    batch_size: int

    def expect(self, num_images: int) -> None:
        """Says how many will come."""

    def stream(self, batches: Iterable[Images]) -> Iterator[Features]:
        """Batches in, features out, in order."""


class Left(Exception):
    """Images were left undone, as `RunContext.leaves` said; what was extracted is in the cache."""

    def __init__(self, num_done: int, num_wanted: int, *, is_kept: bool = True) -> None:
        told = "missing images were extracted, and are kept" if is_kept else "images were decoded"
        super().__init__(f"{num_done} of {num_wanted} {told}")


def features(
    context: RunContext,
    index: Index,
    rows: NDArray[np.int64],
    space: Space,
    shape: Preprocess,
    extractor: Callable[[], Extractor],
    *,
    view: View | None = None,
    stage: tuple[str, float, float] = ("features", 0.05, 0.6),
    is_first: bool = False,
) -> tuple[Features, Extraction]:
    """Features of some samples, in the order of `rows`.

    Args:
        context: of the job.
        index: of its dataset.
        rows: which samples.
        space: of the features; decides what is taken from the cache.
        shape: preprocessing of the backbone.
        extractor: opens what turns images into features; called only when something is missing.
        view: changes the decoded image before it is resized (augmentation); depends on the image and its digest alone.
        stage: name for the progress, and the fractions at its start and end.
        is_first: whether nothing can be served before these are there, so that a stop ends the job.

    Shape:
        rows: [N]
        result: [N, ...]

    Raises:
        JobFailure: stopped; or internal, somebody removes what is extracted.
    """
    began = time.monotonic()
    cache = FeatureCache(context.storage, context.document.project, space, context.scratch)
    keys_N = index.sha256[rows]
    arrays, chunk_N, row_N = cache.load(keys_N)
    num_extracted, run = 0, None
    # Once, unless a collection takes a chunk of images that were nobody's when it looked (decision 0032).
    for _ in range(ROUNDS):
        if (chunk_N >= 0).all():
            break
        missing = rows[chunk_N < 0]
        # Copies of one image are extracted once.
        _, first = np.unique(index.sha256[missing], return_index=True)
        todo = missing[np.sort(first)]
        run = run or extractor()
        _extract(context, index, todo, cache, shape, run, view, stage, is_first)
        num_extracted += len(todo)
        arrays, chunk_N, row_N = cache.load(keys_N)
    if (chunk_N < 0).any():
        raise JobFailure(
            "internal",
            f"expected extracted features in storage; found some gone {ROUNDS} times; retry the job",
        )
    out = np.empty((len(rows), *arrays[0].shape[1:]), np.float32)
    for number, array in enumerate(arrays):
        here = chunk_N == number
        out[here] = array[row_N[here]]
    return out, Extraction(len(rows) - num_extracted, num_extracted, time.monotonic() - began)


def pooled(
    context: RunContext,
    index: Index,
    rows: NDArray[np.int64],
    backbone: Prepared,
    stage: tuple[str, float, float],
    extractor: Callable[[], Extractor] | None = None,
    *,
    is_first: bool = False,
) -> tuple[Features, Extraction]:
    """The pooled features that heads stand on, unaugmented; `extractor` where the caller has it open already.

    Raises:
        JobFailure: as `features`.
    """
    return features(
        context,
        index,
        rows,
        pooled_space(context, backbone),
        backbone.preprocess,
        extractor or (lambda: open_extractor(context, backbone)),
        stage=stage,
        is_first=is_first,
    )


def num_missing(context: RunContext, index: Index, rows: NDArray[np.int64], backbone: Prepared) -> int:
    """How many images would have to be extracted for `pooled`."""
    return num_missing_in(context, index, rows, pooled_space(context, backbone))


def num_missing_in(context: RunContext, index: Index, rows: NDArray[np.int64], space: Space) -> int:
    """How many images the cache does not have in a space."""
    cache = FeatureCache(context.storage, context.document.project, space, context.scratch)
    _, chunk_N, _ = cache.load(index.sha256[rows])
    return int((chunk_N < 0).sum())


def pooled_space(context: RunContext, backbone: Prepared) -> Space:
    """Of the features that heads stand on."""
    return Space(backbone.digest, backbone.preprocess.digest, "pooled", "center", precision(context))


def precision(context: RunContext) -> str:
    """The precision class of this job's features; one job uses one."""
    return "bf16" if context.device == "cuda" else "fp32"


def open_extractor(context: RunContext, backbone: Prepared) -> Extractor:
    """Images -> pooled features: on a CPU by onnxruntime (4 x torch), on a GPU by torch."""
    if context.device == "cuda":
        from worker.backbones.torch_features import TorchExtractor

        return TorchExtractor(backbone, context.device, precision(context))
    return graph_extractor(backbone.graph, context.settings.num_compute_threads)


def graph_extractor(graph: Path, threads: int) -> Extractor:
    """Images -> a graph's only output."""
    from app.serving.runtime import Session

    session = Session(graph, threads=threads)
    return lambda images: session.run(images)[0]


def decoded(
    context: RunContext,
    index: Index,
    rows: NDArray[np.int64],
    shape: Preprocess,
    view: View | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[NDArray[np.int64], Images]]:
    """Batches of (rows, images [N, H, W, 3]) in stored order, decoded in threads a few batches ahead."""
    max_pixels = context.settings.max_image_pixels

    def load(item: tuple[int, bytes]) -> tuple[int, Images]:
        row, data = item
        if view is None:
            return row, preprocess.load(data, shape, max_pixels)
        image = decoding.decode(data, at_least=shape.resize, max_pixels=max_pixels)
        return row, preprocess.apply(view(image, index.sha256[row].decode()), shape)

    source = iter_images(index, rows, lambda name: context.storage.fetch(f"{index.prefix}/{name}"))
    for done in loaded(source, load, context.settings.num_compute_threads, batch_size):
        yield np.array([row for row, _ in done], np.int64), np.stack([pixels for _, pixels in done])


def loaded(source: Iterator[T], load: Callable[[T], U], num_threads: int, batch_size: int) -> Iterator[list[U]]:
    """Batches of what is loaded in threads, in the source's order, a few batches ahead of whoever takes them."""
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as threads:
        waiting = [threads.submit(load, item) for item in islice(source, batch_size * AHEAD_BATCHES)]
        while waiting:
            done = [future.result() for future in waiting[:batch_size]]
            waiting = waiting[batch_size:]
            waiting += [threads.submit(load, item) for item in islice(source, batch_size)]
            yield done


def _extract(
    context: RunContext,
    index: Index,
    rows: NDArray[np.int64],
    cache: FeatureCache,
    shape: Preprocess,
    extractor: Extractor,
    view: View | None,
    stage: tuple[str, float, float],
    is_first: bool,
) -> None:
    """Extracts and stores chunk by chunk: a killed attempt loses one chunk at most, and one that is asked to end none.

    Raises:
        Left: the context says so.
        JobFailure: stopped.
        Yielded: the worker shuts down.
    """
    reporter = context.reporter
    name, start, end = stage
    began, done = time.monotonic(), 0
    kept_rows: list[NDArray[np.int64]] = []
    kept: list[Features] = []
    batch_size = BATCH_SIZE
    if isinstance(extractor, Streamed):
        extractor.expect(len(rows))
        batch_size = extractor.batch_size
    for batch_rows, found in _through(extractor, decoded(context, index, rows, shape, view, batch_size)):
        kept_rows.append(batch_rows)
        kept.append(found)
        done += len(batch_rows)
        fraction = done / len(rows)
        eta = (time.monotonic() - began) * (1 - fraction) / fraction
        reporter.progress(start + (end - start) * fraction, name, round(eta, 1))
        leaves = done < len(rows) and context.leaves()
        stops = done < len(rows) and is_first and reporter.stop_requested
        is_full = sum(map(len, kept)) >= CHUNK_IMAGES or done == len(rows)
        if is_full or leaves or stops or reporter.yield_requested:
            cache.add(index.sha256[np.concatenate(kept_rows)], np.concatenate(kept))
            kept_rows, kept = [], []
            reporter.check_yield()
        if leaves:
            raise Left(done, len(rows))
        if stops:
            raise JobFailure(
                "stopped",
                f"expected the features of {len(rows)} images before anything can be learned; found a stop after "
                f"{done}, which are kept; retry the job, and it goes on from there",
            )


def _through(
    extractor: Extractor, batches: Iterable[tuple[NDArray[np.int64], Images]]
) -> Iterator[tuple[NDArray[np.int64], Features]]:
    """Features of batches, each with its rows."""
    if not isinstance(extractor, Streamed):
        for rows, images in batches:
            yield rows, extractor(images)
        return
    under_way: deque[NDArray[np.int64]] = deque()

    def passed() -> Iterator[Images]:
        for rows, images in batches:
            under_way.append(rows)
            yield images

    for found in extractor.stream(passed()):
        yield under_way.popleft(), found
