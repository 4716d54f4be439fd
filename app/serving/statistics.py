"""What was answered for each version since the process began: counts and times, as the Open Inference Protocol asks."""

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, field

from app.serving.call import Result

# Upper ends in seconds; one more bucket holds what took longer.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Duration:
    """How often, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class Counters:
    """Of one version.

    Args:
        success: requests answered, from their submission to the engine.
        fail: requests refused by the engine, broken off, or past their deadline.
        queue: time that decoded images waited for their batch.
        compute_input: decoding.
        compute_infer: backbone, alignment and head.
        inference_count: images.
        execution_count: batches.
        buckets: requests answered by how long they took, see BUCKETS.
        last_inference_ms: of the last request that was answered, milliseconds since 1970; 0 without one.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    inference_count: int = 0
    execution_count: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    last_inference_ms: int = 0

    @property
    def used(self) -> bool:
        """Whether anything was asked of the version."""
        return bool(self.success.count or self.fail.count)


class Statistics:
    """Counters by a version's id. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counters] = defaultdict(Counters)
        self._compared: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def watch(self, version_id: str, future: Future[Result]) -> Future[Result]:
        """Counts a request when it ends, however it does.

        Args:
            version_id: of what is asked.
            future: the engine's, just begun.

        Returns:
            the same future.
        """
        start = time.monotonic()
        future.add_done_callback(lambda ended: self._ended(version_id, ended, time.monotonic() - start))
        return future

    def compared(self, pair: tuple[str, str], outcome: str, number: int) -> None:
        """Counts images that a shadow was asked for beside a version: `same`, `different`, `dropped` or `failed`.

        Args:
            pair: ids of the version and of the shadow.
            outcome: how it went.
            number: of images.
        """
        with self._lock:
            self._compared[pair][outcome] += number

    @property
    def comparisons(self) -> dict[tuple[str, str], dict[str, int]]:
        """Images by outcome, for each version and shadow."""
        with self._lock:
            return {pair: dict(outcomes) for pair, outcomes in self._compared.items()}

    def of(self, version_id: str) -> Counters:
        """A version's counters at this moment."""
        with self._lock:
            return deepcopy(self._counters[version_id]) if version_id in self._counters else Counters()

    def _ended(self, version_id: str, future: Future[Result], seconds: float) -> None:
        with self._lock:
            counters = self._counters[version_id]
            if future.cancelled() or future.exception() is not None:
                counters.fail.add(seconds)
                return
            result = future.result()
            counters.success.add(seconds)
            counters.buckets[bisect_left(BUCKETS, seconds)] += 1
            counters.queue.add(result.timing.queue)
            counters.compute_input.add(result.timing.decode)
            counters.compute_infer.add(result.timing.compute)
            counters.inference_count += len(result.probabilities_NC)
            counters.execution_count += result.timing.batches
            counters.last_inference_ms = int(time.time() * 1000)
