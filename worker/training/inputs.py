"""What training reads: cached arrays with views, or decoded images that are augmented in threads.

Shape legend: N items, B of a batch, V views, S side of a stored image, H x W of the network's input.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from app.artifact import preprocess
from app.artifact.preprocess import Preprocess
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.backbones.extraction import NOTHING, Extraction
from worker.backbones.feature_cache import Space
from worker.backbones.prepared import Prepared
from worker.data.samples import Index
from worker.training import augment
from worker.training.augment import CachedView
from worker.training.batches import Draws, Rows

# In half precision: rounding changes a pooled feature in its fourth digit, and twice as many views fit.
HALF_MAX = float(np.finfo(np.float16).max)
ACTIVATION_BYTES = 2 * 2**30
IMAGE_BYTES = 4 * 2**30
MAX_VIEWS = 4
CHUNK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class ArraySource:
    """Cached arrays; a draw picks one of an item's views, view 0 is the plain one.

    Shape:
        views_VN: [V, N, ...]
    """

    views_VN: NDArray[Any]

    def take(self, items_B: Rows, draws_B: Draws | None) -> Tensor:
        """See loop.Source. float32."""
        views_B = 0 if draws_B is None else self.view(draws_B)
        return torch.from_numpy(self.views_VN[views_B, items_B].astype(np.float32, copy=False))

    def view(self, draws_B: Draws) -> NDArray[np.int64]:
        """Which view each draw picks."""
        return (draws_B % np.uint64(len(self.views_VN))).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Decoded images; a draw decides crop, flip and an operation of `groups`; nothing where `crops` is off.

    Shape:
        images_NSS3: [N, S, S, 3] uint8
    """

    images_NSS3: NDArray[np.uint8]
    shape: Preprocess
    flip: bool
    threads: ThreadPoolExecutor
    groups: tuple[str, ...] = ()
    crops: bool = True

    def take(self, items_B: Rows, draws_B: Draws | None) -> Tensor:
        """See loop.Source. uint8 [B, H, W, 3]: normalisation belongs to the network."""
        draws = [None] * len(items_B) if draws_B is None else draws_B.tolist()
        return torch.from_numpy(np.stack(list(self.threads.map(self._one, items_B.tolist(), draws))))

    def _one(self, item: int, draw: int | None) -> NDArray[np.uint8]:
        image = Image.fromarray(self.images_NSS3[item])
        if draw is None or not self.crops:
            return preprocess.apply(image, self.shape)
        return np.asarray(augment.crop_and_flip(image, draw, self.shape, self.flip, self.groups))


def decode_all(
    context: RunContext, index: Index, rows: Rows, shape: Preprocess, stage: tuple[str, float, float]
) -> NDArray[np.uint8]:
    """Every row's central square of `shape.resize` pixels, decoded once for all epochs.

    In memory within IMAGE_BYTES, else in a file of the scratch folder, which the system keeps in what memory there is.

    Shape:
        result: [N, S, S, 3]

    Raises:
        Left: the context says so.
    """
    square = replace(shape, height=shape.resize, width=shape.resize)
    size = (len(rows), shape.resize, shape.resize, 3)
    if np.prod(size, dtype=np.int64) <= IMAGE_BYTES:
        images = np.empty(size, np.uint8)
    else:
        images = np.lib.format.open_memmap(context.scratch / "decoded.npy", "w+", np.uint8, size)
    order = np.argsort(rows)
    name, start, end = stage
    done = 0
    for batch_rows, pixels in features.decoded(context, index, rows, square):
        images[order[np.searchsorted(rows, batch_rows, sorter=order)]] = pixels
        done += len(batch_rows)
        context.reporter.progress(start + (end - start) * done / len(rows), name)
        if done < len(rows) and context.leaves():
            raise features.Left(done, len(rows), is_kept=False)
    return images


def num_views(backbone: Prepared, num_images: int) -> int:
    """How many views of the activations fit ACTIVATION_BYTES: 0 when not even the plain one does."""
    if backbone.activation_shape is None:
        return 0
    size_bytes = 2 * num_images * int(np.prod(backbone.activation_shape))
    return min(MAX_VIEWS, ACTIVATION_BYTES // size_bytes)


def activations(
    context: RunContext,
    index: Index,
    rows: Rows,
    backbone: Prepared,
    view: CachedView | None,
    stage: tuple[str, float, float],
) -> tuple[NDArray[np.float16], Extraction]:
    """What the frozen prefix makes of some images, from the feature cache where it is known.

    Args:
        context: of the job.
        index: of its dataset.
        rows: which samples.
        backbone: with a proven split.
        view: an augmented view, or None for the plain one.
        stage: name for the progress, and the fractions at its start and end.

    Shape:
        result: [N, *backbone.activation_shape]
    """
    assert backbone.activation_shape is not None
    shape = backbone.preprocess if view is None else without_margin(backbone.preprocess)
    name = "center" if view is None else view.name
    space = Space(backbone.digest, shape.digest, f"activations:{backbone.split}", name, "fp16")
    out = np.empty((len(rows), *backbone.activation_shape), np.float16)
    total = NOTHING
    label, begin, end = stage
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        here = (begin + (end - begin) * start / len(rows), begin + (end - begin) * (start + len(part)) / len(rows))
        stage = (label, *here)
        found, extraction = features.features(
            context, index, part, space, shape, lambda: half_extractor(context, backbone), view=view, stage=stage
        )
        out[start : start + len(part)] = found
        total += extraction
    return out, total


def half_extractor(context: RunContext, backbone: Prepared) -> features.Extractor:
    """Images -> activations as float16, clipped to what it holds. The cache stores what it gets: half the bytes."""
    assert backbone.prefix is not None
    run = features.graph_extractor(backbone.prefix, context.settings.num_compute_threads)
    return lambda images: np.clip(run(images), -HALF_MAX, HALF_MAX).astype(np.float16)


def without_margin(shape: Preprocess) -> Preprocess:
    """The same input without the border that the centre crop cuts away: augmented views come at their final size."""
    return replace(shape, resize=min(shape.height, shape.width))


def at_resolution(shape: Preprocess, side: int) -> Preprocess:
    """A square input of another side, with the same share of margin."""
    return replace(shape, height=side, width=side, resize=round(side * shape.resize / shape.height))
