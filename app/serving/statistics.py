"""What was answered for each version since the service began: counts and times, as the Open Inference Protocol asks.

Several processes of one service add up what they have counted, through a `Board`; the others' part is at most a second
old.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter

from app import texts
from app.serving.board import Board
from app.serving.call import Result

# Upper ends in seconds; one more bucket holds what took longer.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Projects, models and codes of refusals that are told apart.
MAX_REFUSED = 2000
OTHERS = ""


@dataclass(slots=True)
class Duration:
    """How often, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.ns += round(seconds * 1e9)

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(self.count + other.count, self.ns + other.ns)


def _no_requests() -> list[int]:
    return [0] * (len(BUCKETS) + 1)


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
        input_buckets: the same by how long decoding took.
        infer_buckets: the same by how long backbone, alignment and head took.
        last_inference_ms: of the last request that was answered, milliseconds since 1970; 0 without one.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    inference_count: int = 0
    execution_count: int = 0
    buckets: list[int] = field(default_factory=_no_requests)
    input_buckets: list[int] = field(default_factory=_no_requests)
    infer_buckets: list[int] = field(default_factory=_no_requests)
    last_inference_ms: int = 0

    @property
    def compute_output(self) -> Duration:
        """Making the answer's tensors out of what was computed: they are that already, so it takes no time."""
        return Duration(self.success.count)

    @property
    def output_buckets(self) -> list[int]:
        """Requests answered by how long that took."""
        return [self.success.count, *[0] * len(BUCKETS)]

    @property
    def used(self) -> bool:
        """Whether anything was asked of the version."""
        return bool(self.success.count or self.fail.count)

    def __add__(self, other: "Counters") -> "Counters":
        found = Counters(**{one.name: _sum(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)})
        found.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)
        return found


def _sum(ours: Any, theirs: Any) -> Any:
    """Of numbers and durations; of buckets one by one."""
    if isinstance(ours, list):
        return [one + other for one, other in zip(ours, theirs, strict=True)]
    return ours + theirs


@dataclass(slots=True)
class Present:
    """What a process holds at this moment.

    Args:
        num_images: in its engine.
        pool_bytes: of loaded graphs.
        pool_graphs: loaded.
    """

    num_images: int = 0
    pool_bytes: int = 0
    pool_graphs: int = 0

    def __add__(self, other: "Present") -> "Present":
        return Present(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


@dataclass(slots=True)
class Tally:
    """What was counted, by one process or by all.

    Args:
        counters: by a version's id.
        compared: images that a shadow was asked for, by id of the version, id of the shadow, and outcome.
        present: what is held now.
        pending: requests under way now, by a version's id.
        loads: graphs that were read into memory.
        logged: images by what became of their record in the prediction log, as `Logbook` counts them.
        refused: requests that were answered with 408, 503 or 504, by project, model and code of the error; the project
            is empty where no key was looked at.
    """

    counters: dict[str, Counters] = field(default_factory=dict)
    compared: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    present: Present = field(default_factory=Present)
    pending: dict[str, int] = field(default_factory=dict)
    loads: int = 0
    logged: dict[str, int] = field(default_factory=dict)
    refused: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def of(self, version_id: str) -> Counters:
        """A version's counters; zeros where nothing was asked of it."""
        return self.counters.get(version_id) or Counters()


_TALLY = TypeAdapter(Tally)


class Statistics:
    """Counters by a version's id. Safe to call from any thread.

    Args:
        present: tells what this process holds.
        board: shared with the service's other processes; none where this is the only one.
        loads: tells how many graphs this process has read into memory.
    """

    def __init__(
        self,
        present: Callable[[], Present] = Present,
        board: Board | None = None,
        loads: Callable[[], int] = int,
    ) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counters] = defaultdict(Counters)
        self._pending: Counter[str] = Counter()
        self._compared: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._logged: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str, str]] = Counter()
        self._present, self._board, self._loads = present, board, loads
        if board is not None:
            board.keep(lambda: _TALLY.dump_json(self._own()))

    def watch(self, version_id: str, future: Future[Result]) -> Future[Result]:
        """Counts a request when it ends, however it does.

        Args:
            version_id: of what is asked.
            future: the engine's, just begun.

        Returns:
            the same future.
        """
        start = time.monotonic()
        with self._lock:
            self._pending[version_id] += 1
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

    def refused(self, project: str, model: str, code: str) -> None:
        """Counts a request that was refused, or not answered in time.

        Args:
            project: whose it was; empty where no key was looked at.
            model: as it was named, which need not be one that there is, nor one that there can be.
            code: of the error.
        """
        if not texts.is_name(model):
            # As long as a message, over gRPC.
            model = OTHERS
        with self._lock:
            if len(self._refused) >= MAX_REFUSED and (project, model, code) not in self._refused:
                # Whoever asks for names that there are not does not take memory for each.
                model = OTHERS
            self._refused[project, model, code] += 1

    def logged(self, outcome: str, number: int) -> None:
        """Counts images that were to be written down by what became of it, as `Logbook` does."""
        with self._lock:
            self._logged[outcome] += number

    def version_ids(self) -> set[str]:
        """Those that this process counts something of."""
        with self._lock:
            return {*self._counters, *(one for pair in self._compared for one in pair)}

    def forget(self, version_ids: set[str]) -> None:
        """Drops what was counted of versions that are not there any more, which nobody can ask for."""
        with self._lock:
            for version_id in version_ids:
                self._counters.pop(version_id, None)
            for pair in [pair for pair in self._compared if not version_ids.isdisjoint(pair)]:
                del self._compared[pair]

    def total(self) -> Tally:
        """Of all processes of the service, at this moment."""
        total = self._own()
        for page in self._board.others() if self._board else ():
            other = _TALLY.validate_json(page.data)
            for version_id, counters in other.counters.items():
                total.counters[version_id] = total.of(version_id) + counters
            for version_id, shadows in other.compared.items():
                ours = total.compared.setdefault(version_id, {})
                for shadow_id, outcomes in shadows.items():
                    ours[shadow_id] = dict(Counter(ours.get(shadow_id, {})) + Counter(outcomes))
            total.loads += other.loads
            total.logged = dict(Counter(total.logged) + Counter(other.logged))
            for project, of_models in other.refused.items():
                for model, codes in of_models.items():
                    known = total.refused.setdefault(project, {})
                    known[model] = dict(Counter(known.get(model, {})) + Counter(codes))
            if page.is_fresh:
                total.present += other.present
                total.pending = dict(Counter(total.pending) + Counter(other.pending))
        return total

    def close(self) -> None:
        """Tells the others for the last time."""
        if self._board is not None:
            self._board.close()

    def _own(self) -> Tally:
        with self._lock:
            compared: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
            for (version_id, shadow_id), outcomes in self._compared.items():
                compared[version_id][shadow_id] = dict(outcomes)
            refused: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
            for (project, model, code), number in self._refused.items():
                refused[project][model][code] = number
            own = {project: dict(of_models) for project, of_models in refused.items()}
            counters, pending, logged = deepcopy(dict(self._counters)), dict(self._pending), dict(self._logged)
            return Tally(counters, dict(compared), self._present(), pending, self._loads(), logged, own)

    def _ended(self, version_id: str, future: Future[Result], seconds: float) -> None:
        with self._lock:
            self._pending[version_id] -= 1
            if not self._pending[version_id]:
                del self._pending[version_id]
            counters = self._counters[version_id]
            if future.cancelled() or future.exception() is not None:
                counters.fail.add(seconds)
                return
            result = future.result()
            counters.success.add(seconds)
            counters.buckets[bisect_left(BUCKETS, seconds)] += 1
            counters.input_buckets[bisect_left(BUCKETS, result.timing.decode)] += 1
            counters.infer_buckets[bisect_left(BUCKETS, result.timing.compute)] += 1
            counters.queue.add(result.timing.queue)
            counters.compute_input.add(result.timing.decode)
            counters.compute_infer.add(result.timing.compute)
            counters.inference_count += len(result.probabilities_NC)
            counters.execution_count += result.timing.batches
            counters.last_inference_ms = int(time.time() * 1000)
