"""The bare pipelined limit: decode and onnxruntime on all cores in one process, no HTTP.

Decoding runs in threads ahead of the batches; the best of the ways to share the cores, with the best of the sizes of
batches, is the limit.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from app import cores
from app.artifact import preprocess
from app.serving.lanes import CPU_BATCH_SIZE
from app.serving.runtime import BATCH_SIZE, Session

# Runners and threads of each.
WAYS = ((1, cores.usable()), (cores.usable(), 1))
# And images in a batch. Fewer for threads together is slower: they wait for each other at every operator.
LIMITS = (*((*way, BATCH_SIZE) for way in WAYS), (cores.usable(), 1, CPU_BATCH_SIZE))


def rates(model: Path, shape: preprocess.Preprocess, photos: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Images a second by each way to share the cores: runners x threads x images."""
    return {" x ".join(map(str, way)): round(_rate(model, shape, photos, seconds, *way), 2) for way in LIMITS}


def limit(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Of several rounds, the rates of the way that is the fastest by the median of all.

    The fastest of each round would be the luckiest one too: the machine itself changes by a tenth meanwhile.
    """
    best = max(rounds[0], key=lambda way: statistics.median(one[way] for one in rounds))
    return [one[best] for one in rounds]


def one_by_one(model: Path, shape: preprocess.Preprocess, photos: Sequence[bytes], number: int) -> list[float]:
    """Seconds of decode and run of single images, one after the other, on all cores."""
    session, found = Session(model), []
    for data in photos[: number // 4]:
        session.run(preprocess.load(data, shape)[None])
    for _, data in zip(range(number), cycle(photos), strict=False):
        begin = time.perf_counter()
        session.run(preprocess.load(data, shape)[None])
        found.append(time.perf_counter() - begin)
    return found


def _rate(
    model: Path,
    shape: preprocess.Preprocess,
    photos: Sequence[bytes],
    seconds: float,
    runners: int,
    threads: int,
    size: int,
) -> float:
    session = Session(model, threads)
    with ThreadPoolExecutor(cores.usable()) as decoders, ThreadPoolExecutor(runners) as running:
        batches = _batches(decoders, shape, cycle(photos), size, (runners + 1) * size)
        waiting: list[Future[Any]] = []
        number, begin, end = 0, 0.0, time.perf_counter() + seconds + 2
        while time.perf_counter() < end:
            if not begin and time.perf_counter() > end - seconds:
                number, begin = 0, time.perf_counter()
            waiting.append(running.submit(session.run, next(batches)))
            if len(waiting) > runners:
                waiting.pop(0).result()
                number += size
        passed = time.perf_counter() - begin
        batches.close()
    return number / passed


def _batches(
    decoders: ThreadPoolExecutor, shape: preprocess.Preprocess, photos: Iterator[bytes], size: int, ahead: int
) -> Any:
    waiting: list[Future[Any]] = []
    try:
        while True:
            while len(waiting) < ahead:
                waiting.append(decoders.submit(preprocess.load, next(photos), shape))
            batch, waiting = waiting[:size], waiting[size:]
            yield np.stack([one.result() for one in batch])
    finally:
        for one in waiting:
            one.cancel()
