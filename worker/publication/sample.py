"""The pictures that a version is tried on before it is served, and what its graphs say of them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.artifact import decoding, preprocess, sample
from app.artifact.precisions import Second
from app.artifact.sample import Said, Sample
from app.serving.runtime import Runtime, Session
from worker.backbones.probes import probe_images
from worker.contract.candidate import Candidate
from worker.contract.task import Rows, Task
from worker.data.samples import iter_images

# Of `probe_images`: a gradient, and rectangles of few colours.
MADE_UP = (1, 3)


def make(task: Task, candidate: Candidate, runtime: Runtime, second: Mapping[Second, Session]) -> Sample:
    """Copies of training images, or made-up pictures: where the job says so, and where there are no images.

    Args:
        task: the data.
        candidate: what is published.
        runtime: its graphs, as they will be served.
        second: its backbone in other precisions.
    """
    shape = candidate.backbone.preprocess
    rows = _rows(task) if task.context.document.inputs.get("sample", True) else np.empty(0, np.int64)
    if len(rows):
        storage, prefix = task.context.storage, task.index.prefix
        found = iter_images(task.index, rows, lambda name: storage.fetch(f"{prefix}/{name}"))
        max_pixels = task.context.settings.max_image_pixels
        images = [decoding.decode(data, max_pixels=max_pixels) for _, data in found]
    else:
        images = [Image.fromarray(probe_images(shape)[place]) for place in MADE_UP]
    pictures = tuple(sample.copy(image, shape) for image in images)
    pixels = np.stack([preprocess.load(picture, shape) for picture in pictures])
    said = runtime.run(pixels)
    others = {precision: session.run(pixels)[0] for precision, session in second.items()}
    return Sample(pictures, bool(len(rows)), Said(said.features, said.probabilities), others)


def _rows(task: Task) -> Rows:
    """One image of each of the first classes; where there are no labels, the first images."""
    rows = task.train if len(task.train) else task.pool
    known = rows[task.labels_N[rows] >= 0]
    rows = known if len(known) else rows
    _, first = np.unique(task.labels_N[rows], return_index=True)
    chosen: NDArray[np.int64] = rows[np.sort(first)] if len(first) >= sample.MAX_PICTURES else rows
    return chosen[: sample.MAX_PICTURES]
