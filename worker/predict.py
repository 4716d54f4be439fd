"""A published version over many images: open the dataset or upload -> predict chunk by chunk -> one file. No torch.

What is run is the engine that answers `predict`: the same decoding, the same sessions, the same batches.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

from app.artifact import alignment as artifact
from app.artifact import bundle
from app.artifact import spec as specs
from app.errors import BadImage, JobFailure, NotFound, NotReady
from app.serving import stored
from app.serving.call import Result
from app.serving.engine import Engine
from app.serving.model import Served
from app.serving.room import Limits
from app.serving.runtime import BATCH_SIZE
from app.storage import Storage
from worker.attempt import job_file
from worker.attempt.context import RunContext
from worker.attempt.gone import version_deleted
from worker.predictions import predicted_drift, sources
from worker.predictions.chunks import Chunks
from worker.predictions.sources import Image, Source
from worker.predictions.table import Layout, Outcome

CHUNK_ROWS = 2048
# Where images take long, a chunk ends after this time: no kill costs much more.
CHUNK_SECONDS = 30.0
# After the first image, until it is said how long the others will take: those of a batch come all at once.
PACE_SECONDS = 1.0
# Images that are on their way at once, for each core, and the bytes of all of them.
WINDOW = 2 * BATCH_SIZE
WINDOW_BYTES = 64 * 2**20
# Of the job's progress, when all is predicted and the file is to be written.
PREDICTED_SHARE = 0.96


def run(context: RunContext) -> dict[str, Any]:
    """Predicts, and stores the file.

    Returns:
        `file`, its key in storage, and `metrics`.

    Raises:
        JobFailure: version_deleted; internal, the version fails its trial; or dataset_invalid: see `sources.opened`.
    """
    request, version = context.document.inputs["request"], context.document.inputs["version"]
    context.reporter.progress(0.01, "load")
    chunks = Chunks(context)
    num_known = chunks.num_rows
    with sources.opened(context, num_known) as source:
        num_asked = len(source.rows)
        if num_known:
            told = f"resumed from step {num_known}: {num_known} of {num_asked} images were predicted before"
            context.reporter.log(told, step=num_known)
        began = time.monotonic()
        try:
            model = _open(context.storage, version)
            known = stored.reference(context.storage, version["prefix"], model.spec)
            layout = Layout(source.index, model.spec.labels, request)
            if num_known < num_asked:
                _predict(context, model, layout, source, chunks)
        except NotFound as error:
            raise version_deleted(version, "read", "name another one") from error
        except NotReady as error:
            raise JobFailure("internal", error.detail) from error
        seconds = time.monotonic() - began
    drift = predicted_drift.told(context.reporter, known, chunks.moments(), model.spec.labels)
    context.reporter.progress(0.97, "write")
    key, num_failed = _write(context, layout, chunks)
    metrics = _metrics(chunks.num_rows, num_asked, num_failed, num_known, seconds)
    return {"file": key, "metrics": metrics | drift}


def _metrics(num_rows: int, num_asked: int, num_failed: int, num_known: int, seconds: float) -> dict[str, Any]:
    """Flat; the rate is that of this attempt."""
    num_new = num_rows - num_known
    return {
        "num_samples": num_rows,
        "num_asked": num_asked,
        "num_failed": num_failed,
        "images_per_second": round(num_new / seconds, 1) if num_new else None,
    }


def _open(storage: Storage, version: dict[str, Any]) -> Served:
    """The version as `predict` would call it.

    Raises:
        NotFound: it was deleted, or its alignment was.
    """
    spec = specs.load(storage.fetch(f"{version['prefix']}/{bundle.SPEC}").read_bytes())
    model = stored.version(storage, version["prefix"], spec)
    alignment = version["alignment"]
    if alignment is None:
        return model
    graph = bundle.entry(storage.fetch(f"{alignment['prefix']}/{artifact.GRAPH}"))
    place = stored.AlignmentPlace(alignment["prefix"], graph.sha256, alignment["moving_backbone"])
    return stored.through(storage, model, place)


def _predict(context: RunContext, model: Served, layout: Layout, source: Source, chunks: Chunks) -> None:
    """Adds a chunk for all rows that have none; fewer when the user wants what there is.

    Raises:
        Yielded: the worker shuts down; what was computed is in a chunk.
    """
    reporter, threads = context.reporter, context.settings.num_compute_threads
    limits = Limits(sys.maxsize, math.inf, context.settings.max_image_pixels)
    todo, num_asked = source.rows[chunks.num_rows :], len(source.rows)
    part: list[tuple[int, Outcome]] = []
    began = last = time.monotonic()
    first: float | None = None
    with closing(Engine(sys.maxsize, threads, limits)) as engine:
        for number, one in enumerate(_answers(engine, model, source.images(todo), threads), start=1):
            part.append(one)
            now, left = time.monotonic(), len(todo) - number
            rate = number / (now - began)
            # Not from the beginning: the first image waits until all is loaded.
            first = now if first is None else first
            eta_seconds = round(left * (now - first) / (number - 1), 1) if now - first > PACE_SECONDS else None
            before, done = source.share_before, 1 - left / num_asked
            reporter.progress(before + (PREDICTED_SHARE - before) * done, "predict", eta_seconds)
            leaves = reporter.stop_requested or reporter.yield_requested
            if not left or leaves or len(part) >= CHUNK_ROWS or now - last >= CHUNK_SECONDS:
                places, said = zip(*part, strict=True)
                chunks.add(layout.table(places, said), predicted_drift.moments(said, model.spec))
                part, last = [], now
                reporter.metric(
                    f"{chunks.num_rows} of {num_asked} images, {rate:.1f} images/s",
                    num_samples=chunks.num_rows,
                    images_per_second=round(rate, 1),
                )
                reporter.check_yield()
            if reporter.stop_requested and left:
                reporter.log(f"stopped: {left} of {num_asked} images have no prediction", "warning", num_left=left)
                return


def _answers(
    engine: Engine, model: Served, images: Iterator[tuple[int, Image]], threads: int
) -> Iterator[tuple[int, Outcome]]:
    """What the model says of each image, in their order; those behind it are on their way meanwhile."""
    waiting: deque[tuple[int, int, Future[Result]]] = deque()
    held = 0
    for row, image in images:
        size = 0 if isinstance(image, BadImage) else len(image)
        waiting.append((row, size, _asked(engine, model, image)))
        held += size
        while len(waiting) > WINDOW * threads or held > WINDOW_BYTES:
            first, size, future = waiting.popleft()
            held -= size
            yield first, _outcome(future)
    for first, _, future in waiting:
        yield first, _outcome(future)


def _asked(engine: Engine, model: Served, image: Image) -> Future[Result]:
    if not isinstance(image, BadImage):
        return engine.submit(model, [image])
    known: Future[Result] = Future()
    known.set_exception(image)
    return known


def _outcome(future: Future[Result]) -> Outcome:
    try:
        return future.result()
    except BadImage as error:
        # Each image is a request of its own here; the place that it has in that says nothing.
        return BadImage(error.detail.removeprefix("image 0: "), code=error.code)


def _write(context: RunContext, layout: Layout, chunks: Chunks) -> tuple[str, int]:
    """The key of the file, under the attempt's own prefix, and the number of rows with a problem."""
    form = layout.request["format"]
    path, num_failed = context.scratch / f"predictions.{form}", 0
    with job_file.WRITERS[form](path, layout.schema) as write:
        for table in chunks.read():
            num_failed += len(table) - table["problem"].null_count
            write(table)
    return job_file.store(context, path), num_failed
