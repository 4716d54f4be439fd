"""What was served, as Prometheus reads it: our own names, and those that dashboards of other servers look for.

Times of our own are histograms in seconds. Triton's and TorchServe's names are sums in microseconds, as there.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, UntypedMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy.orm import Session

from app.errors import Overloaded
from app.services import drift, models
from app.services.drift import Observation
from app.serving.tally import BUCKETS, Counters, Duration, Tally

Value = Callable[[Counters], int]

TRITON_FAILURES = "nv_inference_request_failure"
TRITON: dict[str, tuple[str, Value]] = {
    "nv_inference_request_success": ("Requests answered", lambda it: it.success.count),
    TRITON_FAILURES: ("Requests that failed", lambda it: it.fail.count),
    "nv_inference_count": ("Images answered", lambda it: it.inference_count),
    "nv_inference_exec_count": ("Batches run", lambda it: it.execution_count),
    "nv_inference_request_duration_us": ("Time of all requests answered", lambda it: it.success.ns // 1000),
    "nv_inference_queue_duration_us": (
        "Time of waiting, to be decoded and to run",
        lambda it: it.queue.ns // 1000,
    ),
    "nv_inference_compute_input_duration_us": ("Time of decoding", lambda it: it.compute_input.ns // 1000),
    "nv_inference_compute_infer_duration_us": ("Time of running", lambda it: it.compute_infer.ns // 1000),
    "nv_inference_compute_output_duration_us": ("Time after running: none", lambda it: it.compute_output.ns // 1000),
}
TORCHSERVE: dict[str, tuple[str, Value]] = {
    "ts_inference_requests_total": ("Requests answered", lambda it: it.success.count),
    "ts_inference_latency_microseconds": ("Time of all requests answered", lambda it: it.success.ns // 1000),
    "ts_queue_latency_microseconds": (
        "Time of waiting, to be decoded and to run",
        lambda it: it.queue.ns // 1000,
    ),
}
KSERVE: dict[str, tuple[str, Callable[[Counters], Duration], Callable[[Counters], list[int]]]] = {
    "request_preprocess_seconds": ("Time of decoding", lambda it: it.compute_input, lambda it: it.input_buckets),
    "request_predict_seconds": ("Time of running", lambda it: it.compute_infer, lambda it: it.infer_buckets),
    "request_postprocess_seconds": (
        "Time after running: none",
        lambda it: it.compute_output,
        lambda it: it.output_buckets,
    ),
}


def metrics(session: Session, total: Tally, observation: Observation, project: str | None = None) -> str:
    """Counters since the service began, in the text format of Prometheus, by model and version.

    Of one project, or of all: models of others than `default` are then named `PROJECT/MODEL`, since two projects may
    have models of one name, and a scrape with two series of the same labels is refused as a whole.
    """
    registry = CollectorRegistry()
    names = models.labels(session, project)
    rows = [(*named, total.of(version_id)) for version_id, named in names.items()]
    shadows = [
        (*names[one], names[other][1], outcomes)
        for one, others in total.compared.items()
        for other, outcomes in others.items()
        if one in names and other in names
    ]
    drifts = list(drift.families(session, observation, names))
    used = [row for row in rows if row[2].used]
    pending = {names[version_id]: number for version_id, number in total.pending.items() if version_id in names}
    refused = _refused(total, {name for name, _ in names.values()}, project)
    others = [*drifts, _refusals(refused)]
    if project is None:
        others.append(_logged(total))
    rejected = {name: number for (name, code), number in refused.items() if code == Overloaded.code}
    # What waits, and what is written down, is that of all projects together.
    waiting = total.present.num_images if project is None else None
    registry.register(_Collector(used, shadows, others, waiting, pending, rejected))
    return generate_latest(registry).decode()


Row = tuple[str, str, Counters]
Shadow = tuple[str, str, str, dict[str, int]]


def _refused(total: Tally, known: set[str], project: str | None) -> Mapping[tuple[str, str], int]:
    """Refusals by model and code; models that there are not have one name together, which is empty.

    So have all of requests with a key that was never seen: nobody knows whose model was meant. They are told of all
    projects only.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for owner, of_models in total.refused.items():
        if project is not None and owner != project:
            continue
        for name, codes in of_models.items():
            label = models.label(owner, name, project)
            for code, number in codes.items():
                counts[label if label in known else "", code] += number
    return counts


def _refusals(counts: Mapping[tuple[str, str], int]) -> Metric:
    what = "Requests answered with 408, 503 or 504"
    family = CounterMetricFamily("graft_predict_refused", what, labels=["model", "reason"])
    for labels, number in sorted(counts.items()):
        family.add_metric(labels, number)
    return family


def _logged(total: Tally) -> Metric:
    family = CounterMetricFamily("graft_log_images", "Images to be written down in prediction logs", labels=["outcome"])
    for outcome, number in total.logged.items():
        family.add_metric([outcome], number)
    return family


class _Collector:
    def __init__(
        self,
        rows: list[Row],
        shadows: list[Shadow],
        others: list[Metric],
        num_images: int | None,
        pending: Mapping[tuple[str, str], int],
        rejected: Mapping[str, int],
    ) -> None:
        self._rows, self._shadows, self._others = rows, shadows, others
        self._num_images, self._pending, self._rejected = num_images, pending, rejected

    def _waiting(self) -> Iterator[Metric]:
        """Images of all models, and requests of each under the name of another server."""
        if self._num_images is not None:
            yield GaugeMetricFamily("graft_predict_waiting_images", "Images in the engine", self._num_images)
        what, labels = "Requests under way", ["model", "version"]
        family = UntypedMetricFamily("nv_inference_pending_request_count", what, labels=labels)
        # A rule that scales by it wants a series where nothing waits, too.
        idle = {(name, version): 0 for name, version, _ in self._rows}
        for named, number in sorted((idle | dict(self._pending)).items()):
            family.add_metric(named, number)
        yield family

    def _triton(self) -> Iterator[Metric]:
        for metric, (what, value) in TRITON.items():
            family = UntypedMetricFamily(metric, what, labels=["model", "version"])
            for name, version, counters in self._rows:
                family.add_metric([name, version], value(counters))
            if metric == TRITON_FAILURES:
                # Which version would have answered was not asked any more.
                for name, number in sorted(self._rejected.items()):
                    family.add_metric([name, ""], number)
            yield family

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield from self._waiting()
        requests = CounterMetricFamily("graft_predict_requests", "Requests", labels=["model", "version", "outcome"])
        images = CounterMetricFamily("graft_predict_images", "Images answered", labels=["model", "version"])
        seconds = HistogramMetricFamily("graft_predict_seconds", "Time of a request", labels=["model", "version"])
        for name, version, counters in self._rows:
            requests.add_metric([name, version, "success"], counters.success.count)
            requests.add_metric([name, version, "failure"], counters.fail.count)
            images.add_metric([name, version], counters.inference_count)
            seconds.add_metric([name, version], _cumulative(counters.buckets), counters.success.ns / 1e9)
        compared = CounterMetricFamily(
            "graft_shadow_images",
            "Images that a shadow was asked for",
            labels=["model", "version", "shadow", "outcome"],
        )
        for name, version, shadow, outcomes in self._shadows:
            for outcome, number in outcomes.items():
                compared.add_metric([name, version, shadow, outcome], number)
        yield from (requests, images, seconds, compared, *self._others)
        host = socket.gethostname()
        yield from self._triton()
        for metric, (what, value) in TORCHSERVE.items():
            family = UntypedMetricFamily(metric, what, labels=["model_name", "model_version", "hostname"])
            for name, version, counters in self._rows:
                family.add_metric([name, version, host], value(counters))
            yield family
        yield from self._kserve()

    def _kserve(self) -> Iterator[Metric]:
        """Histograms by model, its versions together, as there."""
        of_models: dict[str, Counters] = {}
        for name, _, counters in self._rows:
            of_models[name] = of_models.get(name, Counters()) + counters
        for metric, (what, duration, buckets) in KSERVE.items():
            family = HistogramMetricFamily(metric, what, labels=["model_name"])
            for name, counters in sorted(of_models.items()):
                family.add_metric([name], _cumulative(buckets(counters)), duration(counters).ns / 1e9)
            yield family


def _cumulative(buckets: Sequence[int]) -> list[tuple[str, int]]:
    """Upper ends with the requests below each, as Prometheus wants them."""
    return list(zip((*map(str, BUCKETS), "+Inf"), accumulate(buckets), strict=True))
