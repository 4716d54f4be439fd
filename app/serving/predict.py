"""Encoded images -> labels and scores: decode in threads, run in batches, rank.

Shape legend: N images, H x W pixels, C classes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact import preprocess
from app.artifact.spec import Spec
from app.errors import BadImage
from app.serving.runtime import BATCH_SIZE, Runtime, Session


@dataclass(frozen=True, slots=True)
class Score:
    """One class and its probability."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image.

    Args:
        label: the most probable class; None when its score is under the caller's threshold.
        score: of the most probable class.
        scores: the best classes, highest first; equal scores in the order of the model's labels.
    """

    label: str | None
    score: float
    scores: tuple[Score, ...]


def predict(
    runtime: Runtime,
    spec: Spec,
    images: Sequence[bytes],
    executor: Executor,
    *,
    top_k: int,
    threshold: float | None = None,
    max_pixels: int = preprocess.MAX_PIXELS,
) -> list[Prediction]:
    """Predictions in the order of the images.

    One batch is decoded while the one before runs, so memory holds two batches of pixels however many images there are.

    Args:
        runtime: the model's sessions.
        spec: the model's labels and preprocessing.
        images: encoded; the type is sniffed from the bytes.
        executor: of threads, for decoding.
        top_k: classes per image.
        threshold: a best score under it gives no label; None always names the best class.
        max_pixels: largest width times height of an image; what a decoder may hold at once.

    Raises:
        BadImage: the first image, in their order, that cannot be used; its `index` is in the message and in `extra`.
    """
    probabilities_NC = run(runtime, spec, images, executor, max_pixels)
    return [rank(row, spec.labels, top_k, threshold) for row in probabilities_NC]


def run(
    runtime: Runtime, spec: Spec, images: Sequence[bytes], executor: Executor, max_pixels: int = preprocess.MAX_PIXELS
) -> NDArray[np.float32]:
    """Encoded images -> probabilities, pipelined.

    Shape:
        result: [N, C]

    Raises:
        BadImage: as in `predict`.
    """
    found = [runtime.run(batch).probabilities for batch in _batches(spec, images, executor, max_pixels)]
    return np.concatenate([np.empty((0, len(spec.labels)), np.float32), *found])


def embed(
    backbone: Session, spec: Spec, images: Sequence[bytes], executor: Executor, max_pixels: int = preprocess.MAX_PIXELS
) -> NDArray[np.float32]:
    """Encoded images -> features, pipelined.

    Shape:
        result: [N, D]

    Raises:
        BadImage: as in `predict`.
    """
    place = backbone.output_names.index("features")
    found = [backbone.run(batch)[place] for batch in _batches(spec, images, executor, max_pixels)]
    return np.concatenate([np.empty((0, spec.backbone.feature_dim), np.float32), *found])


def _batches(spec: Spec, images: Sequence[bytes], executor: Executor, max_pixels: int) -> Iterator[NDArray[np.uint8]]:
    """Decoded batches in the order of the images, one ahead."""
    waiting: list[Future[NDArray[np.uint8]]] = []
    try:
        for start in range(0, len(images), BATCH_SIZE):
            ahead = images[start + len(waiting) : start + 2 * BATCH_SIZE]
            waiting += [executor.submit(preprocess.load, data, spec.preprocess, max_pixels) for data in ahead]
            batch, waiting = waiting[:BATCH_SIZE], waiting[BATCH_SIZE:]
            yield np.stack([_pixels(future, start + offset) for offset, future in enumerate(batch)])
    finally:
        for future in waiting:
            future.cancel()


def rank(
    probabilities_C: NDArray[np.float32], labels: Sequence[str], top_k: int, threshold: float | None
) -> Prediction:
    """One image's probabilities -> its best classes.

    Shape:
        probabilities_C: [C]
    """
    order = np.argsort(-probabilities_C, kind="stable")[:top_k]
    scores = tuple(Score(labels[index], float(probabilities_C[index])) for index in order)
    best = int(probabilities_C.argmax())
    score = float(probabilities_C[best])
    return Prediction(None if threshold is not None and score < threshold else labels[best], score, scores)


def _pixels(future: Future[NDArray[np.uint8]], index: int) -> NDArray[np.uint8]:
    try:
        return future.result()
    except BadImage as error:
        raise BadImage(f"image {index}: {error.detail}", code=error.code, index=index) from error
