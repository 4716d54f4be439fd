"""Counts and times of each version, as the Open Inference Protocol asks for them, and how those of several add up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

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
        queue: time that images waited, for a decoder and for their batch.
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

    def add(self, other: "Tally", is_present: bool = True) -> None:
        """Adds what another process has counted.

        Args:
            other: the process's; left as it is.
            is_present: whether it holds at this moment what it said that it holds.
        """
        for version_id, counters in other.counters.items():
            self.counters[version_id] = self.of(version_id) + counters
        _add(self.compared, other.compared)
        _add(self.refused, other.refused)
        self.loads += other.loads
        self.logged = _sums(self.logged, other.logged)
        if is_present:
            self.present += other.present
            self.pending = _sums(self.pending, other.pending)


def _sums(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(ours) + Counter(theirs))


def _add(ours: dict[str, dict[str, dict[str, int]]], theirs: dict[str, dict[str, dict[str, int]]]) -> None:
    """Of numbers two names deep, such as those by project and model."""
    for first, of_second in theirs.items():
        known = ours.setdefault(first, {})
        for second, numbers in of_second.items():
            known[second] = _sums(known.get(second, {}), numbers)
